"""Run notebooks as pytest items."""
