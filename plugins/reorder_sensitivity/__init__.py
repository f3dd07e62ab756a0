"""Sensitivity: how much a model reacts to the order of its patches, and what it forgets."""
