"""Requests to a Jupyter server: authentication, redirects, retries, errors."""
