"""Locks and finished kernels in the cache folder."""

from __future__ import annotations

import os
import subprocess
import sys

from uffdlab.kernels.cache import Cache, Kernel
from uffdlab.kernels.progress import Silent


def publish(cache: Cache, content: bytes, key: str = "ab" * 32, name: str = "a/b") -> Kernel:
    folder = cache.folder / "made"
    folder.mkdir(parents=True)
    (folder / "vmlinux").write_bytes(content)
    return cache.publish(folder, Kernel(name, folder / "vmlinux", "6.1", key))


def test_a_published_kernel_is_found_and_removed(tmp_path):
    cache = Cache(tmp_path)
    assert cache.find("a/b", "ab" * 32) is None
    kernel = publish(cache, b"one")
    assert cache.find("a/b", "ab" * 32) == kernel
    assert cache.find("a/b", "cd" * 32) is None
    assert cache.find("a", "ab" * 32) is None
    assert not (tmp_path / "made").exists()
    other = publish(cache, b"other", name="a/b-c")
    assert cache.finished("a/b") == [kernel]
    assert cache.remove("a/b") > 3
    assert cache.finished("a/b") == []
    assert cache.finished("a/b-c") == [other]


def test_a_damaged_kernel_is_not_found(tmp_path):
    cache = Cache(tmp_path)
    kernel = publish(cache, b"a whole one")
    kernel.image.write_bytes(b"a whole")
    assert cache.find("a/b", "ab" * 32) is None
    kernel.image.write_bytes(b"a whole one")
    assert cache.find("a/b", "ab" * 32) == kernel
    for bad in ("{", "[]", "{}", ""):
        (kernel.image.parent / "kernel.json").write_text(bad)
        assert cache.find("a/b", "ab" * 32) is None
        assert cache.finished("a/b") == []


def test_publishing_again_replaces_the_kernel(tmp_path):
    cache = Cache(tmp_path)
    first = publish(cache, b"one")
    first.image.unlink()
    assert cache.find("a/b", "ab" * 32) is None
    assert publish(cache, b"two").image.read_bytes() == b"two"


def test_a_folder_without_a_record_is_not_a_kernel(tmp_path):
    cache = Cache(tmp_path)
    kernel = publish(cache, b"one")
    (kernel.image.parent / "kernel.json").unlink()
    assert cache.find("a/b", "ab" * 32) is None
    assert cache.finished("a/b") == []


def test_a_wait_for_a_lock_names_its_holder_and_children_share_the_lock(tmp_path):
    cache = Cache(tmp_path)
    printed = []

    class Recording(Silent):
        def stage(self, text, total=0, unit=""):
            printed.append(text)
            child.stdin.close()  # the child ends, and with it the lock

    with cache.locked("it", Silent()) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    with cache.locked("it", Recording()):
        pass
    child.wait(20)
    assert printed == [f"waiting for process {os.getpid()}, at work on it"]
    with cache.locked("it", Silent()), cache.locked("another", Silent()):
        assert len(printed) == 1
