"""Fold kernel messages into valid nbformat outputs."""
