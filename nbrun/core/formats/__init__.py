"""JSON, durations, sizes, patterns and tracebacks as text."""
