"""Reporters: listeners that write the progress and results of runs."""
