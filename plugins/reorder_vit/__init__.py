"""Vision transformer: full attention, which does not care about the order; built of timm's own blocks."""
