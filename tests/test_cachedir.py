"""A file is published whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from uffdlab import cachedir, errors


def test_a_file_appears_when_it_is_finished(tmp_path):
    path = tmp_path / "file"
    with cachedir.publish(path) as file:
        file.write(b"whole")
        file.flush()
        assert list(tmp_path.iterdir()) == []
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        with cachedir.publish(path) as file:
            file.write(content)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_nothing(tmp_path):
    def half():
        with cachedir.publish(tmp_path / "file") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list(tmp_path.iterdir()) == []


def test_no_unnamed_files_here(tmp_path, monkeypatch):
    real = os.open

    def without(path, flags, *rest, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", without)
    with cachedir.publish(tmp_path / "file") as file:
        file.write(b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
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


def test_a_full_disk_is_told(tmp_path):
    with pytest.raises(errors.HostUnsupported, match="Make room") as caught, cachedir.publish(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.missing == "disk space"


def test_a_cache_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(errors.HostUnsupported, match="UFFDLAB_CACHE"):
        cachedir.folder("x")


def test_prune_keeps_the_most_recently_used(tmp_path):
    for number in range(6):
        path = tmp_path / f"{number}.x"
        path.touch()
        os.utime(path, ns=(number, number))
    (tmp_path / "other").touch()
    cachedir.touch(tmp_path / "0.x")
    assert (tmp_path / "0.x").stat().st_mtime > time.time() - 60
    cachedir.prune(tmp_path, "*.x", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"0.x", "5.x", "other"}
