"""A cache, a store and a PATH of the test's own."""

import pytest


@pytest.fixture(autouse=True)
def bin_folder(tmp_path, monkeypatch):
    """Return the only folder in PATH, which is empty; no setting is made but the cache folder."""
    for name in ("IMAGES", "MIRROR", "ACCEL", "SAVED"):
        monkeypatch.delenv(f"UFFDLAB_{name}", raising=False)
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UFFDLAB_KERNELS", str(tmp_path / "kernels"))
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def program(bin_folder):
    """Return a function that makes a program of a shell script."""

    def make(name, text):
        path = bin_folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make
