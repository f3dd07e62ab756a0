"""Orders sorted softly by N scores: SoftSort, NeuralSort, and ShuffleSoftSort for long sequences."""
