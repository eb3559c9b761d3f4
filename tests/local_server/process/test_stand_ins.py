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


def test_a_private_server_imports_neither_metrics_nor_events_nor_templates() -> None:
    loaded = "print([name for name in ('prometheus_client.core', 'yaml', 'jinja2.environment') if name in sys.modules])"
    assert printed_by(f"{APP}{loaded}") == "[]\n"
    assert printed_by(f"{APP.replace('install()', '')}{loaded}") != "[]\n"


def test_names_without_a_stand_in_are_those_of_the_library() -> None:
    asked = """
import prometheus_client, jupyter_events.logger
from jinja2 import Template
print(Template('{{ 1 + 1 }}').render(), prometheus_client.REGISTRY, jupyter_events.logger.SchemaNotRegistered.__name__)
"""
    assert printed_by(APP + asked).startswith("2 <prometheus_client")


async def test_a_page_that_does_not_exist_is_answered_with_its_status(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        page = await client.get("nowhere")
        assert (page.status_code, page.text) == (404, "404 Not Found")
        assert (await client.get("api/contents/nowhere.ipynb")).text.startswith("file or directory")
