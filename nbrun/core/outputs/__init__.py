"""Merge kernel messages into valid nbformat outputs."""
