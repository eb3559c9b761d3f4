"""Code of the private server's own process."""
