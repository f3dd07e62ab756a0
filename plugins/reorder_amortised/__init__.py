"""A policy that looks at the image: a small scorer on the patches gives each image an order of its own."""
