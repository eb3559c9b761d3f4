"""Write progress and results for people."""
