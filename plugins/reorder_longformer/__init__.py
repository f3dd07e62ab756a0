"""Longformer: attention within a sliding window of slots, and to a few global tokens."""
