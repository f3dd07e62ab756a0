"""Captions: words after the patches in one causal sequence, or from a decoder that looks at the patches."""
