"""Saliency: which patches a model leans on, and where in its order they stand."""
