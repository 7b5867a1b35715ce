"""Fixtures: a catalogue, a cache and an archive for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_kernel: --import-mode=importlib does not add it

import tiny_kernel


@pytest.fixture(scope="session", autouse=True)
def _without_kernels_of_this_user(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UFFDLAB_KERNELS", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture(scope="session")
def debs(tmp_path_factory) -> Path:
    """Return the folder of the package files, which are made once."""
    folder = tmp_path_factory.mktemp("debs")
    tiny_kernel.source_deb(folder)
    tiny_kernel.source_deb(
        folder, "6.1.0-2", {**tiny_kernel.FILES, "fs/third.c": "int third(void)\n{\n\treturn 33;\n}\n"}
    )
    tiny_kernel.make_deb(
        folder,
        "linux-image-here",
        "6.12",
        {"boot/vmlinuz-6.12": tiny_kernel.bzimage(b"?"), "boot/config-6.12": b"CONFIG_A=y\n"},
    )
    return folder


@pytest.fixture
def lab(tmp_path, debs, monkeypatch) -> tiny_kernel.Lab:
    """Return a catalogue, a cache and an archive in the folder of this test."""
    for variable in ("UFFDLAB_TEST_COUNT", "UFFDLAB_TEST_SLOW", "UFFDLAB_TEST_SLOW_OBJECT"):
        monkeypatch.delenv(variable, raising=False)
    for name, text in {
        "kernels.toml": tiny_kernel.KERNELS_TOML,
        "two.patch": tiny_kernel.PATCH,
        "stale.patch": tiny_kernel.STALE_PATCH,
        "broken.patch": tiny_kernel.BROKEN_PATCH,
        "full.patch": tiny_kernel.FULL_PATCH,
        "lab.config": f"{tiny_kernel.NEEDED}# CONFIG_NET is not set\n",
        "trees.config": f"{tiny_kernel.NEEDED}CONFIG_UNKNOWN=y\n",
        "unknown.config": "CONFIG_UNKNOWN=y\n",
    }.items():
        path = tmp_path / "kernel-patch" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tiny_kernel.Lab(
        tmp_path, tiny_kernel.FakeArchive(debs, {"linux-source-tiny": "6.1.0-1", "linux-image-here": "6.12"})
    )
