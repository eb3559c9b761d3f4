"""Engines: seats on other machines. A layer above the runner, imported only for ``--engine``."""
