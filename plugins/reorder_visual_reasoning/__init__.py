"""Questions about an image, answered from a set of answers."""
