"""The pytest plug-in: notebooks as pytest items."""
