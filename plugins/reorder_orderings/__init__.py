"""The named curves: fixed orderings of a rectangle of patches, and transformations of any of them."""
