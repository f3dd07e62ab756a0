"""Prediction: which statistic of an order tells how accurate which model becomes with it."""
