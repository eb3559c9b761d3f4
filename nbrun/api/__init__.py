"""The Python API: run notebooks, prepare and plan them, and open servers."""
