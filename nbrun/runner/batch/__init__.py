"""Many runs over one server."""
