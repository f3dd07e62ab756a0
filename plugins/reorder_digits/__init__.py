"""Real handwritten digits that come with scikit-learn: alone, in clutter, and several in a scene."""
