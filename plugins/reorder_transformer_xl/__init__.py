"""Transformer-XL: segments read one after the other, each with a memory of what came before."""
