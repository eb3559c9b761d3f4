"""Detect lost kernel messages and request them again."""
