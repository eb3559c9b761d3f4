"""Parameters: declarations, values, the injected cell, and literals of all languages."""
