"""Stand-ins are imported in place of libraries, and give way to them for anything else."""

import subprocess
import sys
from pathlib import Path

from nbrun.local_server.launcher import EmbeddedServer
from tests.support.private import http

APP = """
import sys
from nbrun.local_server.process.stand_ins import install
install()
import nbrun.local_server.process.app
"""


def printed_by(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_private_server_imports_neither_metrics_nor_events_nor_templates_nor_schemas() -> None:
    names = ("prometheus_client.core", "yaml", "jinja2.environment", "jsonschema.validators", "anyio.abc")
    loaded = f"print([name for name in {names} if name in sys.modules])"
    assert printed_by(f"{APP}{loaded}") == "[]\n"
    assert printed_by(f"{APP.replace('install()', '')}{loaded}") != "[]\n"


def test_names_without_a_stand_in_are_those_of_the_library() -> None:
    asked = """
import prometheus_client, jupyter_events.logger
from jinja2 import Template
print(Template('{{ 1 + 1 }}').render(), prometheus_client.REGISTRY, jupyter_events.logger.SchemaNotRegistered.__name__)
"""
    assert printed_by(APP + asked).startswith("2 <prometheus_client")


def test_an_invalid_notebook_is_described_by_jsonschema() -> None:
    asked = """
import nbformat
cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": 1, "outputs": [], "execution_count": None}
notebook = nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]})
for each in notebook, {**notebook, "metadata": 1}:
    try:
        nbformat.validate(each)
    except nbformat.ValidationError as error:
        print(error.message, list(error.relative_path), type(error).__mro__[-3].__module__)
assert nbformat.validator.isvalid(each) is False
nbformat.validate({**notebook, "added": 1, "cells": []}, relax_add_props=True)
cell["metadata"], cell["source"] = {"name": 1}, ""
found = {**notebook, "cells": [cell]}
print(nbformat.validator.normalize(found, strip_invalid_metadata=True)[1]["cells"][0]["metadata"])
"""
    ours, theirs = printed_by(APP + asked), printed_by(asked)
    assert ours.replace("nbrun.local_server.process.stand_ins", "jsonschema.exceptions") == theirs
    assert "is not of type" in ours


async def test_a_page_that_does_not_exist_is_answered_with_its_status(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        page = await client.get("nowhere")
        assert (page.status_code, page.text) == (404, "404 Not Found")
        assert (await client.get("api/contents/nowhere.ipynb")).text.startswith("file or directory")
