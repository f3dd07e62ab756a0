"""Real handwritten digits that come with scikit-learn: alone, and in clutter."""
