"""The Image Transformer's local self-attention: blocks of queries, each with the memory around it."""
