"""Run the command line: ``python -m nbrun`` is ``nbrun``."""

from nbrun.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
