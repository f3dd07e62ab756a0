"""Gumbel-Sinkhorn: orders as hardened doubly stochastic matrices, learned through the task's own gradient."""
