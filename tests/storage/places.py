"""A folder on a server with a notebook in it that is being run, as the tests of saving need it."""

from pathlib import Path
from typing import Any

from nbrun.jupyter.client import Client
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.storage.on_server import ServerNotebook
from tests.support.notebooks import code, notebook, read_notebook, stdout, write_notebook

BRISK = RetryPolicy(tries=5, total=120.0, first=0.02, longest=0.1)
ORIGINAL = notebook(code("6 * 7", outputs=[stdout("old")]))
EXECUTED = notebook(code("6 * 7", outputs=[stdout("42")]))


class Place:
    """A folder on the server with a notebook in it, and a client that may go through a proxy."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.warnings: list[str] = []
        self.file = write_notebook(folder / "nb.ipynb", ORIGINAL)

    def opened(self, output: str = "nb.ipynb", **options: Any) -> ServerNotebook:
        """Return the notebook before it is loaded."""
        path, target = f"{self.folder.name}/nb.ipynb", f"{self.folder.name}/{output}"
        return ServerNotebook(self.client.contents, path, target, warn=self.warnings.append, **options)

    async def loaded(self, output: str = "nb.ipynb", **options: Any) -> ServerNotebook:
        """Return the notebook as a run has it."""
        opened = self.opened(output, **options)
        await opened.load()
        return opened

    def write(self, document: dict[str, Any]) -> None:
        """Do what somebody else does to the notebook."""
        write_notebook(self.file, document)

    def names(self) -> list[str]:
        """Return the names of all files in the folder, hidden ones too."""
        return sorted(path.name for path in self.folder.iterdir())

    def text_of(self, cell: int) -> str:
        """Return what a cell of the notebook has put out first."""
        text: str = read_notebook(self.file)["cells"][cell]["outputs"][0]["text"]
        return text

    def text(self, name: str = "nb.ipynb") -> str:
        """Return what the only cell of a saved notebook has put out."""
        text: str = read_notebook(self.folder / name)["cells"][0]["outputs"][0]["text"]
        return text
