"""Entry point of ``python -m nbrun``, which is the same as ``nbrun``."""

from nbrun._import_path import standard_library_first

standard_library_first()  # before anything that a token.py in PYTHONPATH would break

# isort: split
from nbrun.cli.main import main_of_process as main  # noqa: E402

__all__ = ["main"]

if __name__ == "__main__":
    main()
