"""Image classification: cross-entropy of each image, top-1 and top-5."""
