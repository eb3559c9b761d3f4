"""Which cells run, with which limits and parameters."""
