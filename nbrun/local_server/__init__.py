"""The private server: a Jupyter server that is started for a run and ends with it."""
