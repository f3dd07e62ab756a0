"""Curricula over orders: from one order, or from random ones, to another while the model trains."""
