"""Negative controls: the same run with another order, so that a gain means something."""
