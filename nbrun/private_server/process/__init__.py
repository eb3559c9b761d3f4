"""What runs in the private server's own process."""
