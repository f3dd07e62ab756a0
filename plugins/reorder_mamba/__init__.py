"""Mamba-1: a selective state space that reads the patches one after the other."""
