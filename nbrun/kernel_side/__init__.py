"""Code that runs in the user's kernel. It imports the standard library only, and nothing of nbrun."""
