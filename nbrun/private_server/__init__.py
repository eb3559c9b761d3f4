"""The Jupyter server that lives as long as a run."""
