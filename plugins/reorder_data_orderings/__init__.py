"""Orderings read off the data: patches that vary together, or look alike, stand next to each other."""
