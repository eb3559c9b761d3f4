"""Stand-ins for libraries that jupyter_server imports and a private server hardly needs.

Nobody reads a private server's metrics (prometheus_client), listens to its events (jupyter_events) or looks at its
pages (jinja2). Only an invalid notebook needs jsonschema, to describe its errors. Of anyio, jupyter_server uses only a
function that the standard library has too. Importing these libraries and what they import takes a quarter of the
server's start. The stand-ins have the names that jupyter_server and nbformat use. For any other name, the library
itself is imported.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

from traitlets.config import LoggingConfigurable

from nbrun._lazy_imports import replace


class Metric:
    """A metric that records nothing; its methods return itself."""

    def __init__(self, *_: object, **__: object) -> None:
        """Accept the name, the description and the labels."""

    def _record(self, *_: object, **__: object) -> "Metric":
        return self

    labels = inc = dec = set = set_function = set_to_current_time = observe = info = _record


class EventLogger(LoggingConfigurable):  # type: ignore[misc]
    """A logger without handlers and listeners."""

    def register_event_schema(self, schema: object) -> None:
        """Ignore the schema."""

    def emit(self, *, schema_id: str, data: Mapping[str, Any], timestamp_override: object = None) -> None:
        """Discard the event."""


class SchemaRegistryException(Exception):
    """Raised by jupyter_events for a schema that is registered twice."""


class TemplateNotFound(Exception):
    """Raised by jinja2 for a missing template."""


class Environment:
    """The templates of pages. Each page consists of its status."""

    def __init__(self, **_: object) -> None:
        """Accept the options."""

    def install_gettext_translations(self, *_: object, **__: object) -> None:
        """Ignore the translations."""

    def get_template(self, name: str) -> "Environment":  # noqa: ARG002
        """Return the only template."""
        return self

    def render(self, status_code: object = "", status_message: object = "", **_: object) -> str:
        """Return the page as text."""
        return f"{status_code} {status_message}"


class FileSystemLoader:
    """A folder of templates that are not read."""

    def __init__(self, *_: object, **__: object) -> None:
        """Accept the folder."""


class ValidationError(Exception):
    """An invalid notebook. Once jsonschema is imported, it is the base class of jsonschema's own class."""

    instance: object = None

    def __init__(self, message: str, *others: object, **_: object) -> None:
        super().__init__(message, *others)
        self.message = message


class Draft4Validator:
    """A validator that imports jsonschema when it is used."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Accept the schema."""
        self._schema = schema

    @cached_property
    def _validator(self) -> Any:
        library = _library("jsonschema")
        error = library.ValidationError
        if ValidationError not in error.__bases__:
            error.__bases__ = (*error.__bases__, ValidationError)
        return library.Draft4Validator(self._schema)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._validator, name)


def error_tree(errors: object) -> Any:
    """Return jsonschema's tree of errors."""
    return _library("jsonschema").exceptions.ErrorTree(errors)


_STAND_INS: Sequence[Mapping[str, Mapping[str, object]]] = (
    {"prometheus_client": dict.fromkeys(("Gauge", "Histogram", "Info"), Metric)},
    {
        "jupyter_events": {"EventLogger": EventLogger},
        "jupyter_events.logger": {"EventLogger": EventLogger},
        "jupyter_events.schema_registry": {"SchemaRegistryException": SchemaRegistryException},
    },
    {
        "jinja2": {
            "Environment": Environment,
            "FileSystemLoader": FileSystemLoader,
            "TemplateNotFound": TemplateNotFound,
        },
        "jinja2.exceptions": {"TemplateNotFound": TemplateNotFound},
    },
    {
        "jsonschema": {"Draft4Validator": Draft4Validator},
        "jsonschema.exceptions": {"ErrorTree": error_tree, "ValidationError": ValidationError},
    },
    {"anyio": {}, "anyio.to_thread": {"run_sync": asyncio.to_thread}},
)
_libraries: dict[str, Callable[[], ModuleType]] = {}


def install() -> None:
    """Install the stand-ins, before jupyter_server is imported."""
    for modules in _STAND_INS:
        _libraries.update(replace(modules))


def _library(name: str) -> Any:
    """Return the library itself, which takes the place of its stand-in."""
    return _libraries[name]()
