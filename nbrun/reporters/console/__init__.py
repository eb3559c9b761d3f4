"""Progress and results on the console."""
