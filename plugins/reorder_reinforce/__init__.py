"""REINFORCE over Plackett-Luce distributions of patch orders."""
