"""Unpack kernels: the vmlinux in a bzImage, and the image, config and modules in Debian's packages.

QEMU can start an uncompressed vmlinux with the PVH note directly, without firmware and without decompressing it. Under
emulation that saves more than a second. Sources: Documentation/x86/boot.rst, scripts/extract-vmlinux.
"""

from __future__ import annotations

import bz2
import lzma
import shutil
import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import lz4.block  # type: ignore[import-untyped]
import zstandard

from uffdlab.errors import SourceError
from uffdlab.kernels import host_checks
from uffdlab.kernels.image import NotAKernel, has_pvh_note, inspect
from uffdlab.kernels.images import Kernel
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MAX_UNPACKED = 1 << 30  # bytes
_UNPACK_DEADLINE = 300.0  # s
# Drivers for the agent's port, for random numbers (its Python does not start without them), and for RAM disks as swap.
_MODULES = {
    *("virtio", "virtio_ring", "virtio_pci", "virtio_pci_legacy_dev", "virtio_pci_modern_dev"),
    *("virtio_console", "virtio_rng", "brd"),
}
_LZ4_BLOCK = 8 << 20  # bytes, of the legacy frame format


def vmlinux_of(bzimage: bytes) -> bytes | None:
    """Return the vmlinux in a bzImage, or None if it lacks the PVH note or its compression is unknown."""
    if bzimage[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", bzimage, 0x206)[0] < 0x208:
        return None  # payload_offset came with boot protocol 2.08
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    for magic, unpack in _UNPACKERS.items():
        if payload.startswith(magic):
            try:
                vmlinux = unpack(payload)
            except _UNPACK_ERRORS:
                return None
            # The kernel's build appends the unpacked size; gzip's own trailer also ends with it.
            whole = struct.unpack("<I", payload[-4:])[0] == len(vmlinux)
            return vmlinux if whole and has_pvh_note(vmlinux) else None
    return None


def _lz4_legacy(payload: bytes) -> bytes:
    # The frame format of `lz4 -l`: the magic number, then blocks of at most 8 MiB, each preceded by its packed size.
    # After the last block comes the unpacked size, which the kernel's build appends.
    blocks = []
    at = 4
    while at + 4 < len(payload):
        size = struct.unpack_from("<I", payload, at)[0]
        blocks.append(lz4.block.decompress(payload[at + 4 : at + 4 + size], uncompressed_size=_LZ4_BLOCK))
        at += 4 + size
    return b"".join(blocks)


_UNPACK_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    lz4.block.LZ4BlockError,
)
_UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda payload: zlib.decompressobj(31).decompress(payload, _MAX_UNPACKED),
    b"\xfd7zXZ\0": lambda payload: lzma.LZMADecompressor().decompress(payload, _MAX_UNPACKED),
    b"\x5d\0\0": lambda payload: lzma.LZMADecompressor().decompress(payload, _MAX_UNPACKED),
    b"BZh": lambda payload: bz2.BZ2Decompressor().decompress(payload, _MAX_UNPACKED),
    b"\x28\xb5\x2f\xfd": lambda payload: zstandard.ZstdDecompressor().decompressobj().decompress(payload),
    b"\x02\x21\x4c\x18": _lz4_legacy,
}


def from_packages(debs: Sequence[Path], out: Path) -> Kernel:
    """Unpack the image and config from Debian's kernel packages into the folder `out`.

    The modules for virtio and RAM disks go into ``out/modules``. The kernel that is returned has an empty name and an
    empty key. Its config is None if no package has one.

    Raises
    ------
    SourceError
        A package cannot be unpacked, or none contains a kernel.
    HostUnsupported
        The disk is full.
    """
    names = ", ".join(deb.name for deb in debs)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="unpacking-") as scratch_name:
        scratch = Path(scratch_name)
        for deb in debs:
            try:
                status, output = run(["dpkg-deb", "-x", deb, scratch], deadline=_UNPACK_DEADLINE)
            except JobTimeout:
                status, output = 1, f"not finished after {_UNPACK_DEADLINE:.0f} s"
            if "No space left on device" in output:
                raise host_checks.disk_full(out, f"unpacking {deb.name}")
            if status:
                raise SourceError(f"{deb.name} cannot be unpacked (dpkg-deb -x → {status}): {output.strip()}")
        packed = _one_of(scratch, "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz")
        config = _one_of(scratch, "boot/config-*", "usr/lib/modules/*/config", "lib/modules/*/config")
        if packed is None:
            raise SourceError(
                f"unpacking {names}: none of them contains a kernel (boot/vmlinuz-* or usr/lib/modules/*/vmlinuz)"
            )
        bzimage = packed.read_bytes()
        try:
            found = inspect(bzimage)
        except NotAKernel as error:
            raise SourceError(f"{names}: {packed.name} is {error}") from error
        vmlinux = vmlinux_of(bzimage)
        image = out / ("bzImage" if vmlinux is None else "vmlinux")
        image.write_bytes(bzimage if vmlinux is None else vmlinux)
        if config is not None:
            shutil.copy(config, out / "config")
        _copy_modules(scratch, out / "modules")
        return Kernel("", image, found.release, "", out / "config" if config else None)


def _copy_modules(scratch: Path, out: Path) -> None:
    # In Debian's kernels the RAM disk is a module, in bookworm's also virtio. uffdlab.machines.qemu.kernel_modules
    # copies these files into the initramfs.
    for path in sorted(scratch.glob("**/lib/modules/*/kernel/drivers/**/*.ko*")):
        if path.name.partition(".ko")[0].replace("-", "_") in _MODULES:
            out.mkdir(exist_ok=True)
            shutil.copy(path, out)


def _one_of(folder: Path, *patterns: str) -> Path | None:
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)
