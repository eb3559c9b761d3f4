"""A quick check whether a notebook is valid, so that most notebooks need no compiled schema.

nbformat compiles its JSON schema into Python code when it validates the first notebook, which takes as long as starting
a kernel. The types below accept only what the schemas of nbformat 4.0 to 4.5 accept, and nearly all notebooks that are
valid. nbformat itself checks all others, so it alone decides what is an error, and how it is described.

The minor versions differ in what this module checks only in the ids of cells, which every cell has from 4.5 on.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, MsgspecError, Struct, UnsetType, convert
from nbformat import v4, validator
from nbformat.json_compat import FastJsonSchemaValidator

_JSON = re.compile(r"application/(.*\+)?json\Z")

_Text = str | list[str]
_Count = Annotated[int, Meta(ge=0)] | None
_Id = Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9_-]{1,64}\Z")]
_Name = Annotated[str, Meta(pattern=r"\A.+\Z")]
_Tag = Annotated[str, Meta(pattern=r"\A[^,]+\Z")]


class _Result(Struct, tag_field="output_type", tag="execute_result", forbid_unknown_fields=True):
    data: dict[str, Any]
    metadata: dict[str, Any]
    execution_count: _Count

    def __post_init__(self) -> None:
        _check_bundle(self.data)


class _Display(Struct, tag_field="output_type", tag="display_data", forbid_unknown_fields=True):
    data: dict[str, Any]
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        _check_bundle(self.data)


class _Stream(Struct, tag_field="output_type", tag="stream", forbid_unknown_fields=True):
    name: str
    text: _Text


class _Error(Struct, tag_field="output_type", tag="error", forbid_unknown_fields=True):
    ename: str
    evalue: str
    traceback: list[str]


class _CellMetadata(Struct):
    format: str = ""
    jupyter: dict[str, Any] = {}
    execution: dict[str, str] = {}
    collapsed: bool = False
    scrolled: bool | Literal["auto"] = False
    name: _Name | UnsetType = UNSET
    tags: list[_Tag] = []

    def __post_init__(self) -> None:
        if len(set(self.tags)) < len(self.tags):
            raise ValueError("a tag is there twice")


class _Cell(Struct, tag_field="cell_type", forbid_unknown_fields=True, kw_only=True):
    metadata: _CellMetadata
    source: _Text
    id: _Id | UnsetType = UNSET


class _TextCell(_Cell):
    attachments: dict[str, dict[str, Any]] = {}

    def __post_init__(self) -> None:
        for bundle in self.attachments.values():
            _check_bundle(bundle)


class _Raw(_TextCell, tag="raw"):
    pass


class _Markdown(_TextCell, tag="markdown"):
    pass


class _Code(_Cell, tag="code"):
    outputs: list[_Result | _Display | _Stream | _Error]
    execution_count: _Count


class _Kernelspec(Struct):
    name: str
    display_name: str


class _LanguageInfo(Struct):
    name: str
    codemirror_mode: str | dict[str, Any] = ""
    file_extension: str = ""
    mimetype: str = ""
    pygments_lexer: str = ""


class _Metadata(Struct):
    kernelspec: _Kernelspec | UnsetType = UNSET
    language_info: _LanguageInfo | UnsetType = UNSET
    orig_nbformat: Annotated[int, Meta(ge=1)] = 4
    title: str = ""
    authors: list[Any] = []


class _Notebook(Struct, forbid_unknown_fields=True):
    metadata: _Metadata
    nbformat_minor: int
    nbformat: Literal[4]
    cells: list[_Raw | _Markdown | _Code]


class QuickValidator(FastJsonSchemaValidator):  # type: ignore[misc]
    """The validator of notebooks in nbformat 4.`minor`."""

    def __init__(self, minor: int) -> None:
        self._minor = minor
        self._full: FastJsonSchemaValidator | None = None

    def iter_errors(self, data: Any, schema: Any = None) -> Any:
        """Return nothing for a valid notebook, otherwise nbformat's errors."""
        if schema is None and is_surely_valid(data, self._minor):
            return []
        if self._full is None:
            file = Path(v4.__file__).with_name(v4.nbformat_schema[4, self._minor])
            self._full = FastJsonSchemaValidator(json.loads(file.read_bytes()))
        return self._full.iter_errors(data, schema)


def install() -> None:
    """Let :func:`nbformat.validate` use the quick check in this process."""
    for version, minor in v4.nbformat_schema:
        if version == 4 and minor <= 5:
            validator.validators["fastjsonschema", version, minor, False] = QuickValidator(minor)


def is_surely_valid(notebook: Any, minor: int) -> bool:
    """Return whether the quick check finds a notebook valid in nbformat 4.`minor`. If not, it may be valid too."""
    try:
        found = convert(notebook, _Notebook)
    except MsgspecError:
        return False
    has_ids = minor >= 5
    return found.nbformat_minor == minor and all((cell.id is not UNSET) is has_ids for cell in found.cells)


def _check_bundle(bundle: Mapping[str, Any]) -> None:
    """Raise ValueError unless the values are text or lists of text, or JSON by their media type."""
    for kind, value in bundle.items():
        is_text = isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value))
        if not is_text and not _JSON.match(kind):
            raise ValueError(kind)
