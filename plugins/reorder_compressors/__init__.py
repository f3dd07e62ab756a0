"""Compressors: how many bytes a string of tokens takes, by LZMA, zlib, bz2 or zstd."""
