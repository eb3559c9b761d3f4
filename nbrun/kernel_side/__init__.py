"""Code that runs in the user's kernel. It imports the standard library only, and nothing else of nbrun."""

AGENT = ("backlog", "output", "replay", "background_tasks", "execution", "agent")
"""The modules of the agent; each imports only those before it."""
