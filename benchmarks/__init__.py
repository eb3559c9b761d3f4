"""nbrun beside its peers: how fast, how much memory, and is everything there?

``python -m benchmarks`` measures in a virtual environment of its own; see docs/benchmarks.md.
"""
