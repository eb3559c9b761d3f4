"""Parameters: what a notebook declares, what a call sets, and the cell that carries them."""
