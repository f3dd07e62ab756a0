"""Training: one run of a recipe, its controls, and what they leave behind."""
