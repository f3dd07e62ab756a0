"""Tokenizers: each patch of an image becomes one of a small number of codes."""
