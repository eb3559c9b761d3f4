"""Options and preparation of a run: which cells run, with which limits and parameters."""
