"""Orders found without a gradient: a bandit over named curves, random search, evolution of logits."""
