"""Files in the folder that a kernel works in, on this machine and on a server."""

import hashlib
import os
from pathlib import Path

import pytest

from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.storage.working_folder import LocalFolder, ServerFolder, ServerScratch, WorkingFolder, collect, find
from tests.support.servers import RunningServer

FILES = ["a.csv", "b.txt", "out/a.csv", "out/deep/c.csv", "out/deep/er/d.txt", "other/e.csv"]


def fill(folder: Path) -> None:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


CASES = [
    ("*.csv", ["a.csv"]),
    ("out/*.csv", ["out/a.csv"]),
    ("out", ["out/a.csv", "out/deep/c.csv", "out/deep/er/d.txt"]),
    ("o*/", ["other/e.csv", "out/a.csv", "out/deep/c.csv", "out/deep/er/d.txt"]),
    ("**/*.csv", ["a.csv", "other/e.csv", "out/a.csv", "out/deep/c.csv"]),
    ("out/**/d.txt", ["out/deep/er/d.txt"]),
    ("out/**", ["out/a.csv", "out/deep/c.csv", "out/deep/er/d.txt"]),
    ("none/*", []),
    ("a.csv/x", []),
]


@pytest.mark.parametrize(("pattern", "paths"), CASES)
async def test_a_pattern_finds_files_of_this_machine(pattern: str, paths: list[str], tmp_path: Path) -> None:
    fill(tmp_path)
    found = await find(LocalFolder(tmp_path), [pattern])
    assert sorted(found[pattern]) == paths


async def test_the_same_patterns_find_the_same_files_on_a_server(server: RunningServer) -> None:
    fill(server.root / "work")
    async with Client(Endpoint(server.url, token=server.token)) as client:
        folder = ServerFolder(client.contents, "work")
        found = await find(folder, [pattern for pattern, _ in CASES])
        assert {pattern: sorted(found[pattern]) for pattern in found} == dict(CASES)
        assert found["*.csv"]["a.csv"].size == len("a.csv")


async def test_a_changed_file_is_seen_as_another_one(tmp_path: Path) -> None:
    fill(tmp_path)
    folder = LocalFolder(tmp_path)
    before = await find(folder, ["*"])
    (tmp_path / "a.csv").write_text("A.csv")
    os.utime(tmp_path / "a.csv", ns=(0, 1))
    after = await find(folder, ["*"])
    assert [name for name in after["*"] if after["*"][name] != before["*"][name]] == ["a.csv"]


async def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    fill(outside)
    fill(inside)
    (inside / "file").symlink_to(outside / "a.csv")
    (inside / "folder").symlink_to(outside)
    (inside / "own").symlink_to(inside / "a.csv")
    os.mkfifo(inside / "pipe")
    found = await find(LocalFolder(inside), ["*", "folder/*"])
    assert "own" in found["*"]
    assert not {"file", "folder/a.csv", "pipe"} & {*found["*"], *found["folder/*"]}


@pytest.mark.parametrize("where", ["here", "server"])
async def test_a_file_is_copied_with_its_hash(where: str, server: RunningServer, tmp_path: Path) -> None:
    source = (tmp_path if where == "here" else server.root) / "copied"
    fill(source)
    data = bytes(range(256)) * 10
    (source / "out" / "a.csv").write_bytes(data)
    async with Client(Endpoint(server.url, token=server.token)) as client:
        folder: WorkingFolder = LocalFolder(source) if where == "here" else ServerFolder(client.contents, "copied")
        artefact = await collect(folder, "out/a.csv", tmp_path / "target")
    assert artefact.sha256 == hashlib.sha256(data).hexdigest()
    assert artefact.size == len(data)
    assert Path(artefact.file) == tmp_path / "target" / "out" / "a.csv"
    assert Path(artefact.file).read_bytes() == data
    assert [path.name for path in (tmp_path / "target").rglob("*") if path.is_file()] == ["a.csv"]


async def test_files_and_scratch_folders_are_removed_from_a_server(server: RunningServer) -> None:
    async with Client(Endpoint(server.url, token=server.token)) as client:
        scratch = ServerScratch(client.contents)
        await scratch.make()
        fill(server.root / scratch.name)
        await ServerFolder(client.contents, scratch.name).remove(["out/deep/c.csv", "out/deep/er/d.txt", "out/a.csv"])
        assert not (server.root / scratch.name / "out").exists()
        assert (server.root / scratch.name / "a.csv").exists()
        await scratch.remove()
    assert not (server.root / scratch.name).exists()
