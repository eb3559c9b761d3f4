"""Executed notebooks as web pages."""
