"""Orders that change on the way through a model: shuffles between layers, and patches reordered by what was seen."""
