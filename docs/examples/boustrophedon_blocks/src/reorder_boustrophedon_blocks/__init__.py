"""Blocks of patches, read to and fro."""
