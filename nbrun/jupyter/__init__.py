"""The shell around the core: everything that talks to a Jupyter server."""
