"""The information-theoretic prior: which order of the patches compresses, and what else tells orders apart."""
