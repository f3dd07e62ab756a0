"""Vision transformers: full attention, which does not care about the order; our own, and any of timm's by name."""
