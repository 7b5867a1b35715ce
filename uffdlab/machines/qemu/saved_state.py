"""A booted machine, saved once and restored for every later start.

A state is one file: a header, QEMU's device state, and the pages of RAM that are not zero.  Machines that differ in any
setting have different keys, and so different files.  A file that does not match its header or checksum is deleted.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uffdlab import cachedir
from uffdlab.bulk import sums
from uffdlab.processes import limits

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"uffdlab-state-5\n"
_SIZES = struct.Struct("<QQQ")  # size of the header's JSON, size of the device state, checksum of these and of RAM
_PAGE = 4096
_BLOCK = 16 * _PAGE  # RAM is saved or left out in blocks of this size
_KEEP = 8  # states, 60 MB each, with Debian's kernels twice that


class Unusable(Exception):
    """A saved state that cannot be used."""


@dataclass(frozen=True)
class SavedState:
    """A saved state in the cache.

    Attributes
    ----------
    path : Path
    facts : dict
        The facts that were saved with it.
    """

    path: Path
    facts: dict[str, Any]
    _devices: tuple[int, int]
    _extents: list[tuple[int, int]]
    _ram_size: int
    _ram_start: int
    _header_sum: int
    _sum: int

    def load(self, ram: int) -> bytes:
        """Fill an empty file with RAM, and return the state of QEMU's devices.

        Raises
        ------
        Unusable
            The state cannot be read, or its checksum is wrong.
        OSError
            This process has no descriptors or memory left.
        """
        total = self._header_sum
        try:
            with self.path.open("rb", buffering=0) as file:
                offset, length = self._devices
                devices = os.pread(file.fileno(), length, offset)
                total = sums.add(total, devices)
                at = self._ram_start
                os.ftruncate(ram, self._ram_size)
                with mmap.mmap(ram, self._ram_size) as memory, memoryview(memory) as view:
                    for start, length in self._extents:
                        with view[start : start + length] as part:
                            if os.preadv(file.fileno(), [part], at) != length:
                                raise Unusable(f"{self.path} is shorter than its header says")
                            total = sums.add(total, part)
                        at += length
        except (OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno in limits.ERRNOS:
                raise
            raise Unusable(f"{self.path}: {error}") from error
        if total != self._sum:
            raise Unusable(f"{self.path}: its content is not what was saved")
        return devices


def key(*parts: object) -> str:
    """Return the key of a state, a hash of all that its machine depends on."""
    return hashlib.sha256(repr((_MAGIC, parts)).encode()).hexdigest()[:40]


def find(name: str) -> SavedState | None:
    """Return the state with this key, or None if there is no usable one.  An invalid one is deleted.

    Raises
    ------
    OSError
        This process has no descriptors or memory left.
    """
    path = _path(name)
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + _SIZES.size)
            if not start.startswith(_MAGIC):
                raise Unusable("it has another format")
            header_size, device_size, total = _SIZES.unpack_from(start, len(_MAGIC))
            whole = os.fstat(file.fileno()).st_size
            if header_size + device_size > whole:
                raise Unusable("it is shorter than its header says")
            text = file.read(header_size)
            header = json.loads(text)
            facts, ram_size = dict(header["facts"]), int(header["ram_size"])
            device = len(start) + header_size
            ram_start = -(-(device + device_size) // _PAGE) * _PAGE
            extents = [(int(at), int(length)) for at, length in header["extents"]]
            if ram_start + sum(length for _at, length in extents) != whole:
                raise Unusable("its size is not what its header says")
    except OSError as error:
        if error.errno in limits.ERRNOS:
            raise
        return None  # there is none, or it cannot be read: a new one replaces it
    except (ValueError, KeyError, TypeError, ArithmeticError, struct.error, Unusable):
        discard(name)
        return None
    cachedir.touch(path)
    return SavedState(path, facts, (device, device_size), extents, ram_size, ram_start, sums.add(0, text), total)


def save(name: str, *, ram: int, device_state: bytes, facts: dict[str, Any]) -> None:
    """Save a stopped machine.

    Parameters
    ----------
    ram : int
        The descriptor of its RAM file.
    device_state : bytes
        The state that QEMU wrote.
    facts : dict
        Saved with it, as JSON.

    Raises
    ------
    HostUnsupported
        The cache cannot be written to.
    """
    import numpy as np  # noqa: PLC0415 - restoring does not need it

    size = os.fstat(ram).st_size
    with mmap.mmap(ram, size, prot=mmap.PROT_READ) as memory:
        extents: list[tuple[int, int]] = []
        for start, end in _data(ram, size):
            block = np.frombuffer(memory, dtype=np.uint64, count=(end - start) // 8, offset=start)
            used = np.flatnonzero(block.reshape(-1, _BLOCK // 8).any(axis=1))
            del block  # it keeps the file mapped
            runs = np.split(used, np.flatnonzero(np.diff(used) > 1) + 1)
            extents += [(start + int(run[0]) * _BLOCK, run.size * _BLOCK) for run in runs if run.size]
        header = json.dumps({"facts": facts, "ram_size": size, "extents": extents}).encode()
        total = sums.add(sums.add(0, header), device_state)
        where = _path(name)
        with cachedir.publish(where) as file, memoryview(memory) as view:
            for at, length in extents:
                with view[at : at + length] as part:
                    total = sums.add(total, part)
            file.write(_MAGIC + _SIZES.pack(len(header), len(device_state), total) + header + device_state)
            file.write(bytes(-file.tell() % _PAGE))
            for at, length in extents:
                with view[at : at + length] as part:
                    file.write(part)
    cachedir.prune(where.parent, "*.state", _KEEP)


def discard(name: str) -> None:
    """Delete a state."""
    with suppress(OSError):
        _path(name).unlink()


def _path(name: str) -> Path:
    return cachedir.folder("machines") / f"{name}.state"


def _data(ram: int, size: int) -> list[tuple[int, int]]:
    # The ranges of a sparse file that may have data, rounded to blocks.
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(ram, at, os.SEEK_DATA)
        except OSError:  # ENXIO: none left
            break
        at = os.lseek(ram, start, os.SEEK_HOLE)
        start, end = start // _BLOCK * _BLOCK, min(size, -(-at // _BLOCK) * _BLOCK)
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
