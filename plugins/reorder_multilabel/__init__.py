"""Several classes an image: mean average precision, with an asymmetric loss if wanted."""
