"""Unpack the vmlinux of a bzImage, and the kernel of Debian packages."""

import bz2
import gzip
import lzma
import struct
from pathlib import Path

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tiny_kernel import bzimage, elf, make_deb

from uffdlab.errors import SourceError
from uffdlab.kernels.unpack import from_packages, vmlinux_of

VMLINUX = elf() + bytes(range(256)) * 36_000  # 10 MB, so that lz4's has two blocks


def lz4_legacy(data: bytes) -> bytes:
    blocks = [lz4.block.compress(data[at : at + (8 << 20)], store_size=False) for at in range(0, len(data), 8 << 20)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


def sized(pack):
    # gzip ends with the unpacked size; to the others the kernel's build appends it.
    return lambda data: pack(data) + struct.pack("<I", len(data))


PACKERS = {
    "gzip": lambda data: gzip.compress(data, 1),
    "xz": sized(lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0)),
    "lzma": sized(lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0)),
    "bzip2": sized(lambda data: bz2.compress(data, 1)),
    "zstd": sized(zstandard.ZstdCompressor().compress),
    "lz4": sized(lz4_legacy),
}
packers = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


@packers
def test_the_vmlinux_of_a_bzimage_is_unpacked(pack):
    assert vmlinux_of(bzimage(pack(VMLINUX))) == VMLINUX


@packers
def test_a_vmlinux_without_pvh_note_is_not_unpacked(pack):
    assert vmlinux_of(bzimage(pack(elf(b"")))) is None


@packers
@pytest.mark.parametrize("keep", [10, 40, -300, -3])
def test_a_truncated_payload_is_not_unpacked(pack, keep):
    assert vmlinux_of(bzimage(pack(VMLINUX)[:keep])) is None


def test_an_old_protocol_or_unknown_compression_is_not_unpacked():
    assert vmlinux_of(bzimage(gzip.compress(VMLINUX), protocol=0x207)) is None
    assert vmlinux_of(bzimage(b"LZO!" + VMLINUX)) is None


@given(st.binary(max_size=2000), st.integers(0, 700))
def test_random_bytes_in_an_image_raise_nothing(noise, at):
    for image in (elf(), bzimage(gzip.compress(elf()))):
        vmlinux_of(image[:at] + noise + image[at + len(noise) :])


def from_debs(tmp_path, *debs):
    out = tmp_path / "out"
    out.mkdir()
    return from_packages(debs, out)


@pytest.mark.parametrize("split", [False, True], ids=["one package", "three packages"])
def test_the_kernel_is_taken_from_one_or_several_packages(tmp_path, split):
    packed = bzimage(gzip.compress(VMLINUX), release="7.3.4")
    if split:  # as since 7.1
        kernel = from_debs(
            tmp_path,
            make_deb(tmp_path, "linux-image-7.3", "1", {"usr/share/doc/x": b""}),
            make_deb(tmp_path, "linux-binary-7.3", "1", {"usr/lib/modules/7.3/vmlinuz": packed}),
            make_deb(tmp_path, "linux-base-7.3", "1", {"usr/lib/modules/7.3/config": b"CONFIG_A=y\n"}),
        )
    else:
        kernel = from_debs(
            tmp_path,
            make_deb(
                tmp_path, "linux-image-6.1", "1", {"boot/vmlinuz-6.1": packed, "boot/config-6.1": b"CONFIG_A=y\n"}
            ),
        )
    assert kernel.image.read_bytes() == VMLINUX
    assert kernel.release == "7.3.4"
    assert kernel.config.read_text() == "CONFIG_A=y\n"


@pytest.mark.parametrize("root", ["lib", "usr/lib"])
def test_only_the_modules_that_the_machine_needs_are_unpacked(tmp_path, root):
    drivers = f"{root}/modules/6.1/kernel/drivers"
    names = [
        "virtio/virtio_pci.ko",
        "virtio/virtio_balloon.ko",
        "char/virtio_console.ko",
        "char/hw_random/virtio-rng.ko.xz",
        "block/brd.ko.xz",
    ]
    files = {f"{drivers}/{name}": name.encode() for name in names}
    image = {"boot/vmlinuz-6.1": bzimage(gzip.compress(VMLINUX))}
    kernel = from_debs(tmp_path, make_deb(tmp_path, "linux-image-6.1", "1", image | files))
    modules = {path.name: path.read_bytes() for path in (kernel.image.parent / "modules").iterdir()}
    assert modules == {Path(name).name: name.encode() for name in names if "balloon" not in name}


def test_packages_without_a_kernel_are_an_error(tmp_path):
    with pytest.raises(SourceError, match="none of them contains a kernel"):
        from_debs(tmp_path, make_deb(tmp_path, "linux-image-6.1", "1", {"usr/share/doc/x": b""}))
    broken = tmp_path / "broken.deb"
    broken.write_bytes(b"!<arch>\nbroken")
    (tmp_path / "out").rmdir()
    with pytest.raises(SourceError, match=r"broken\.deb cannot be unpacked"):
        from_debs(tmp_path, broken)
