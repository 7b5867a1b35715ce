"""Locks and folders in the cache folder."""

from __future__ import annotations

import os
import subprocess
import sys

from uffdlab.kernels.cache import Cache
from uffdlab.kernels.progress import Silent


def test_the_environment_names_the_shared_store(tmp_path, monkeypatch):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "mine"))
    monkeypatch.delenv("UFFDLAB_IMAGES", raising=False)
    assert Cache().shared is None
    monkeypatch.setenv("UFFDLAB_IMAGES", str(tmp_path / "theirs"))
    assert Cache().images.folder == tmp_path / "mine" / "images"
    assert Cache().shared.folder == tmp_path / "theirs"
    assert Cache(tmp_path).shared is None
    assert Cache(tmp_path, tmp_path / "x").shared.folder == tmp_path / "x"


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
