"""A booted machine, saved once and restored for every later start.

A state is one file: a header, QEMU's device state, and the pages of RAM that are not zero.  Machines that differ in any
setting have different keys, and so different files.  A file that does not match its header or checksum is deleted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uffdlab import cachedir, errors, settings
from uffdlab.bulk import sums
from uffdlab.processes import limits

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"uffdlab-state-5\n"
_SIZES = struct.Struct("<QQQ")  # size of the header's JSON, size of the device state, checksum of these and of RAM
_PAGE = 4096
_BLOCK = 16 * _PAGE  # RAM is saved or left out in blocks of this size


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
        The cache cannot be written to, or saved guests may not take so much.
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
        whole = len(header) + len(device_state) + sum(length for _at, length in extents)
        limit = settings.saved_guests()
        if whole > limit:
            raise errors.HostUnsupported(
                f"the saved guest would take {whole / 1e6:.0f} MB, and saved guests may take {limit / 1e6:.0f} MB: set "
                f"{settings.SAVED.variable} to more",
                missing="room for saved guests",
            )
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
    _bound(where, limit)


def hold(name: str) -> int | None:
    """Return a descriptor that keeps a state from being removed until it is closed, or None if there is no state."""
    with suppress(OSError):
        return _locked(_path(name), fcntl.LOCK_SH)
    return None


def clear() -> tuple[int, int]:
    """Remove all states that no running machine was restored from.  Return the bytes freed and how many states stay."""
    freed = kept = 0
    for _when, size, path in _states():
        if _remove(path):
            freed += size
        else:
            kept += 1
    return freed, kept


def _bound(newest: Path, limit: int) -> None:
    # Removes the oldest states until the others take no more than the limit.
    states = _states()
    total = sum(size for _when, size, _path in states)
    for _when, size, path in states:
        if total > limit and path != newest and _remove(path):
            total -= size


def _states() -> list[tuple[int, int, Path]]:
    # When each state was last used, its size and its path; the oldest first.
    found = []
    for path in cachedir.folder("machines").glob("*.state"):
        with suppress(OSError):
            info = path.stat()
            found.append((info.st_mtime_ns, info.st_blocks * 512, path))
    return sorted(found)


def _remove(path: Path) -> bool:
    with suppress(OSError):
        descriptor = _locked(path, fcntl.LOCK_EX)
        try:
            path.unlink()
        finally:
            os.close(descriptor)
        return True
    return False


def _locked(path: Path, how: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


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
