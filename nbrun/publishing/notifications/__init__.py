"""Notifications about a run: mail, HTTP hooks, chat services and pings."""
