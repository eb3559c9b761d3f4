"""See the package."""

raise ImportError
