"""The cache folder, the names in it, and files that appear in it only when they are complete."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab import cachedir, errors
from uffdlab.kernels.cache import Cache


def test_a_file_appears_when_it_is_finished(tmp_path):
    path = tmp_path / "file"
    with cachedir.publish(path) as file:
        file.write(b"complete")
        file.flush()
        assert list(tmp_path.iterdir()) == []
    assert path.read_bytes() == b"complete"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        with cachedir.publish(path) as file:
            file.write(content)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_nothing(tmp_path):
    def write_and_fail():
        with cachedir.publish(tmp_path / "file") as file:
            file.write(b"part")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_published_on_a_file_system_without_o_tmpfile(tmp_path, monkeypatch):
    os_open = os.open

    def without_tmpfile(path, flags, *rest, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return os_open(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", without_tmpfile)
    with cachedir.publish(tmp_path / "file") as file:
        file.write(b"complete")
    assert (tmp_path / "file").read_bytes() == b"complete"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_killed_writer_leaves_nothing(tmp_path):
    code = (
        "import pathlib, sys, time\nfrom uffdlab import cachedir\n"
        "with cachedir.publish(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(bytes(1 << 20)); file.flush(); print('written', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "file"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported(tmp_path):
    with pytest.raises(errors.HostUnsupported, match="Make room") as caught, cachedir.publish(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.missing == "disk space"


def test_a_cache_folder_that_cannot_be_made_is_reported(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(errors.HostUnsupported, match="UFFDLAB_CACHE"):
        cachedir.folder("x")


def test_prune_removes_all_but_the_most_recently_used(tmp_path):
    for number in range(6):
        path = tmp_path / f"{number}.x"
        path.touch()
        os.utime(path, ns=(number, number))
    (tmp_path / "other").touch()
    cachedir.touch(tmp_path / "0.x")
    assert (tmp_path / "0.x").stat().st_mtime > time.time() - 60
    cachedir.prune(tmp_path, "*.x", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"0.x", "5.x", "other"}


@given(st.lists(st.text(min_size=1, max_size=30), unique=True))
def test_slugs_are_file_names_and_differ(names):
    slugs = [cachedir.slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    for slug in slugs:
        assert Path(slug).name == slug
        assert not slug.startswith(".")


def test_the_environment_sets_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "mine"))
    assert cachedir.root() == tmp_path / "mine"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UFFDLAB_CACHE", "~/mine")
    assert cachedir.folder("x") == tmp_path / "home" / "mine" / "x"
    assert Cache().folder == tmp_path / "home" / "mine"
    monkeypatch.setenv("UFFDLAB_CACHE", "~nobody-of-that-name/mine")
    with pytest.raises(errors.HostUnsupported, match="UFFDLAB_CACHE is ~nobody"):
        cachedir.root()
    monkeypatch.setenv("UFFDLAB_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cachedir.root() == tmp_path / "xdg" / "uffdlab"


def test_discard_removes_what_a_killed_discard_left(tmp_path):
    (tmp_path / ".trash-1-1").mkdir()
    (tmp_path / "it").mkdir()
    cachedir.discard(tmp_path / "it")
    cachedir.discard(tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_does_not_change_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "it"
    cachedir.write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        cachedir.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_mode_that_the_umask_allows(tmp_path):
    path = tmp_path / "new" / "it"
    old = os.umask(0o027)
    try:
        cachedir.write_atomically(path, b"text")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640
