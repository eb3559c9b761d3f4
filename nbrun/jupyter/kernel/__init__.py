"""The connection to one kernel."""
