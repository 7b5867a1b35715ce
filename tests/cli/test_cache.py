"""`uffdlab cache` and `uffdlab cache clear`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from uffdlab import cachedir
from uffdlab.cli import cache
from uffdlab.cli.main import main
from uffdlab.machines.qemu import saved_state


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a cache folder with a file of 8 kB in each part, and in a part that the command does not know."""
    for part in (*(part.folder for part in cache._PARTS), "vagrant-vm"):
        (tmp_path / "cache" / part / "x").mkdir(parents=True)
        (tmp_path / "cache" / part / "x" / "file").write_bytes(b"x" * 8192)
    (tmp_path / "cache" / "machines" / ("a" * 40 + ".state")).write_bytes(b"x" * 8192)
    (tmp_path / "cache" / "locks").mkdir()
    (tmp_path / "cache" / "locks" / "tree.lock").touch()
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UFFDLAB_IMAGES", raising=False)
    return tmp_path / "cache"


def run(*arguments, status=0):
    result = CliRunner().invoke(main, ["cache", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def folders(root):
    return {path.name for path in root.iterdir() if any(each.is_file() for each in path.rglob("*"))}


def test_each_part_is_listed_with_its_size_and_place(root, tmp_path, monkeypatch):
    output = run()
    for part in cache._PARTS:
        assert f"{part.about}" in output
        assert str(root / part.folder) in output
    assert f"in all: {root}" in output
    assert "saved guests, at most 1.0 GB" in output
    assert "shared" not in output
    monkeypatch.setenv("UFFDLAB_IMAGES", str(tmp_path / "srv"))
    assert f"0 B  shared kernels, which are only read: {tmp_path / 'srv'}" in run()


def test_json_has_the_same_in_bytes(root):
    document = json.loads(run("--json"))
    parts = {part["folder"]: part for part in document["parts"]}
    assert parts.keys() == {str(root / part.folder) for part in cache._PARTS}
    assert parts[str(root / "images")]["files"] == 1
    assert parts[str(root / "images")]["bytes"] >= 8192
    assert document["bytes"] == sum(part["bytes"] for part in document["parts"])
    assert (document["folder"], document["saved_guests_limit"], document["shared"]) == (str(root), 10**9, None)


def test_an_empty_cache_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "none"))
    assert f"0 B  in all: {tmp_path / 'none'}" in run()
    assert "0 B removed" in run("clear")
    assert "0 B removed" in run("clear", "--all")
    assert not (tmp_path / "none").exists()


def test_clear_removes_what_is_made_again_in_seconds(root):
    assert "removed from" in run("clear")
    stays = {part.folder for part in cache._PARTS if part.stays}
    assert folders(root) == {*stays, "machines", "locks", "vagrant-vm"}  # machines: a file that is no state
    assert not list((root / "machines").glob("*.state"))


def test_clear_all_leaves_locks_and_the_disk_of_a_vm(root):
    run("clear", "--all")
    assert folders(root) == {"machines", "locks", "vagrant-vm"}


def test_a_saved_guest_in_use_stays_and_is_told(root):
    descriptor = saved_state.hold("a" * 40)
    try:
        assert "1 saved guest in use by a lab stays" in run("clear")
    finally:
        os.close(descriptor)
    assert len(list((root / "machines").glob("*.state"))) == 1
    assert "in use" not in run("clear")
    assert not list((root / "machines").glob("*.state"))


def test_clear_all_removes_nothing_while_another_process_builds(root):
    code = (
        "import sys\nfrom pathlib import Path\nfrom uffdlab import cachedir\n"
        "with cachedir.locked_file(Path(sys.argv[1]), 'x'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, root / "locks" / "tree.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        before = folders(root)
        output = run("clear", "--all", status=1)
        assert f"process {holder.pid} " in output
        assert folders(root) == before
        holder.stdin.close()
    run("clear", "--all")
    assert cachedir.root() == root


def test_a_wrong_size_for_saved_guests_is_an_error(monkeypatch, root):
    monkeypatch.setenv("UFFDLAB_SAVED", "much")
    assert "UFFDLAB_SAVED is much: it must be a size like 500M" in run(status=2)
