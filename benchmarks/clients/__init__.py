"""Programs that are measured, each run as a script of its own: they import nothing of the harness."""
