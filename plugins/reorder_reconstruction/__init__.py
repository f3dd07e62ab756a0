"""Self-supervised: the pixels of masked patches."""
