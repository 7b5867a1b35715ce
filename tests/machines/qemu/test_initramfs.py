"""The initramfs has what the agent needs; it is built once, and again when a source has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uffdlab import cachedir, errors
from uffdlab.machines.qemu import cpio, initramfs


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    packed = {}
    pack = cpio.pack
    monkeypatch.setattr(cpio, "pack", lambda entries: packed.update(entries) or pack(entries))
    initramfs.get({"data/one": b"1", "bin/script": b"#!/bin/sh\n", "true": Path("/bin/true")})
    return packed


def test_the_initramfs_has_the_files_that_the_agent_needs(unpacked):
    names = set(unpacked)
    library = initramfs._STDLIB
    assert {"init", "usr/bin/python3", f"{library}/os.pyc", f"{library}/encodings/utf_8.pyc"} <= names
    assert {f"{library}/uffdlab/agent/{name}.pyc" for name in ("init", "server", "target", "userfaultfds")} <= names
    assert any("uffdlab/agent/_native" in name for name in names)
    assert any("_cffi_backend" in name for name in names)
    assert any(name.startswith("usr/lib/libc.so") for name in names)
    assert not any("numpy" in name or name.startswith(f"{library}/uffdlab/machines") for name in names)
    assert sum(len(entry.data) for entry in unpacked.values()) < 40 << 20


def test_the_initramfs_has_busybox_and_its_tools(unpacked):
    busybox = Path(shutil.which("busybox"))
    assert unpacked["bin/busybox"].data[:4] == b"\x7fELF"
    assert unpacked["bin/sh"] == unpacked["bin/uname"] == cpio.symlink("/bin/busybox")
    listed = subprocess.run([busybox, "--list-full"], capture_output=True, text=True, check=True).stdout.split()
    assert set(listed) < set(unpacked)


@pytest.mark.parametrize("kind", ["none", "a script", "cut short", "one that fails", "one that lists nothing"])
def test_without_a_static_busybox_there_are_no_tools(monkeypatch, tmp_path, caplog, kind):
    path = tmp_path / "busybox"
    real = Path(shutil.which("busybox")).read_bytes()
    content = {
        "a script": b"#!/bin/sh\n",
        "cut short": real[: 1 << 16],
        "one that fails": program_bytes("false"),
        "one that lists nothing": program_bytes("true"),
    }
    path.write_bytes(content.get(kind, b""))
    path.chmod(0o755)
    monkeypatch.setattr(initramfs, "_busybox", lambda: None if kind == "none" else path)
    packed = {}
    monkeypatch.setattr(cpio, "pack", lambda entries: packed.update(entries) or b"")
    initramfs.get()
    assert ("guests have no shell and no tools" in caplog.text) == (kind != "none")
    assert "init" in packed
    assert not any("busybox" in name or name.endswith("/sh") for name in packed)


def program_bytes(name):
    return Path(shutil.which(name)).read_bytes()


def test_extra_files_are_included(unpacked):
    assert unpacked["data/one"] == cpio.file(b"1")
    assert unpacked["bin/script"] == cpio.file(b"#!/bin/sh\n", executable=True)
    assert unpacked["true"] == cpio.file(Path("/bin/true").read_bytes(), executable=True)


def test_the_bytecode_runs_without_its_sources(unpacked, tmp_path):
    for name, entry in unpacked.items():
        if name.startswith(initramfs._STDLIB) and entry.data:
            path = tmp_path / "lib" / name.removeprefix(initramfs._STDLIB + "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.data)
    code = "import sys; sys.path[:] = sys.argv[1:]; import uffdlab.agent.init as i; print(i.__spec__.origin)"
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", code, tmp_path / "lib"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "lib/uffdlab/agent/init.pyc")


def test_the_initramfs_is_built_once(monkeypatch):
    first = initramfs.get()
    monkeypatch.setattr(initramfs, "_entries", lambda *_: pytest.fail("it was built again"))
    assert initramfs.get() == first
    assert first.path.stat().st_mode & 0o777 == 0o644  # the user that QEMU runs as reads it, and no user writes it


def test_every_process_builds_the_same_initramfs(tmp_path):
    here = initramfs.get()
    code = "import typing, dis; from uffdlab.machines.qemu import initramfs; print(initramfs.get().key)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
                           env={**os.environ, "UFFDLAB_CACHE": str(tmp_path / "other")})  # fmt: skip
    assert other.stdout.strip() == here.key


def test_the_initramfs_is_built_again_when_a_source_has_changed(tmp_path):
    source = tmp_path / "file"
    source.write_bytes(b"one")
    one = initramfs.get({"file": source})
    source.write_bytes(b"other")
    two = initramfs.get({"file": source})
    assert one.key != two.key
    source.write_bytes(b"one")
    os.utime(source, ns=(1, 1))
    assert initramfs.get({"file": source}) == one


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"key": 3}', b"\xff", b"[]"])
def test_a_damaged_index_is_built_again(damage):
    first = initramfs.get()
    (index,) = cachedir.folder("initramfs").glob("*.json")
    index.write_bytes(damage)
    assert initramfs.get() == first


def test_a_missing_archive_is_built_again():
    first = initramfs.get()
    first.path.unlink()
    assert initramfs.get() == first
    assert first.path.exists()


def test_an_agent_that_cannot_be_imported_is_reported(monkeypatch):
    monkeypatch.setattr(initramfs, "INIT", "uffdlab.agent.no_such_module")
    with pytest.raises(errors.HostUnsupported, match="no_such_module"):
        initramfs.get()
    assert list(cachedir.folder("initramfs").iterdir()) == []
