"""Many runs on one server."""
