"""A kernel is found by the path of its image."""

from __future__ import annotations

import pytest
from tiny_kernel import bzimage, elf

import uffdlab.kernels
from uffdlab import errors


@pytest.mark.parametrize(("data", "release"), [(elf(), "6.1.0-test"), (bzimage(b""), "6.1.0-test")])
def test_the_path_of_an_image_is_accepted(tmp_path, data, release):
    path = tmp_path / "mine"
    path.write_bytes(data)
    for name in (path, str(path)):
        kernel = uffdlab.kernels.get(name)
        assert (kernel.image, kernel.release, kernel.name) == (path, release, str(path))
    assert kernel.config is None
    assert kernel.log is None


def test_a_relative_path_is_accepted(tmp_path, monkeypatch):
    (tmp_path / "bzImage").write_bytes(bzimage(b""))
    monkeypatch.chdir(tmp_path)
    for name in ("bzImage", "./bzImage"):
        assert uffdlab.kernels.get(name).image == tmp_path / "bzImage"


@pytest.mark.parametrize("name", ["./missing", "/missing/bzImage"])
def test_a_missing_path_is_an_error(name):
    with pytest.raises(errors.UnknownKernel, match="No such file"):
        uffdlab.kernels.get(name)


def test_a_file_that_is_no_kernel_is_an_error(tmp_path):
    path = tmp_path / "vmlinux"
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(errors.KernelError, match="neither a bzImage nor"):
        uffdlab.kernels.get(path)
    path.write_bytes(b"")
    with pytest.raises(errors.KernelError, match="neither a bzImage nor"):
        uffdlab.kernels.get(path)
    with pytest.raises(errors.UnknownKernel, match="directory"):
        uffdlab.kernels.get(tmp_path)
