"""The kind and the release are read from a bzImage or vmlinux."""

import contextlib
import gzip
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_kernel import bzimage, elf

from uffdlab.kernels.image import NotAKernel, inspect


def test_kind_and_release_are_read_from_an_image():
    assert inspect(elf(release="6.12.1-x")).kind == "vmlinux"
    assert inspect(elf(release="6.12.1-x")).release == "6.12.1-x"
    assert inspect(bzimage(b"", release="7.3.4+deb13")).kind == "bzImage"
    assert inspect(bzimage(b"", release="7.3.4+deb13")).release == "7.3.4+deb13"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x7fELF", elf(b""), elf(machine=183), elf(struct.pack("<III4sI", 4, 4, 6, b"Xen\0", 0)), b"MZ" * 600],
)
def test_other_files_are_refused(data):
    with pytest.raises(NotAKernel):
        inspect(data)


@given(st.binary(max_size=2000), st.integers(0, 700))
def test_random_bytes_in_an_image_raise_no_other_error(noise, at):
    for image in (elf(), bzimage(gzip.compress(elf()))):
        with contextlib.suppress(NotAKernel):
            inspect(image[:at] + noise + image[at + len(noise) :])
