"""The cell tags that nbrun reads or writes."""

from typing import Any

from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.document import Cell

SKIP_TAG = "skip-execution"
"""The cell is not executed and keeps its outputs."""
RAISES_TAG = "raises-exception"
"""An error of the cell is expected."""
PARAMETERS_TAG = "parameters"
"""The cell declares the notebook's parameters."""
INJECTED_TAG = "injected-parameters"
"""The cell sets parameters. nbrun and papermill write it."""


def tags_of(cell: Cell) -> list[Any]:
    """Return a cell's tags, or an empty list if its metadata has no list of tags."""
    tags = as_object(cell.get("metadata")).get("tags")
    return tags if isinstance(tags, list) else []
