"""The bench of policies: planted problems, whose best order is known, and how soon a policy finds it."""
