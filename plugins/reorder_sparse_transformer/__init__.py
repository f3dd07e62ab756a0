"""Sparse self-attention: the strided and fixed factorisations of the Sparse Transformer, and BigBird's blocks."""
