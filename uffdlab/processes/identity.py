"""The user that a program of root's becomes when it needs no root: one of its own, whom nothing here belongs to."""

from __future__ import annotations

import pwd
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# What systemd lends to services while they run (DynamicUser= in systemd.exec(5)), so no account of this host's.
_LENT = range(61184, 65520)
_SETGID, _SETUID = 1 << 6, 1 << 7  # linux/capability.h
_READ_WRITE, _READ_RUN, _RUN = 0o6, 0o5, 0o1  # as others see a file's mode
_TRIES = 100


@dataclass(frozen=True)
class Identity:
    """A user, its group of the same number, and the groups it is in besides."""

    number: int
    groups: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ",".join(map(str, (self.number, *self.groups)))


def unprivileged(program: Path, device: Path | None = None) -> Identity | None:
    """Return whom a program can become that needs no root, None if it is to stay as it is.

    It stays where this process cannot become somebody else, since it is not root, or is root of a namespace that has
    no other users; and where only root can run `program` or open `device`.

    Parameters
    ----------
    program : Path
        Where it is.
    device : Path, optional
        What it must open for reading and writing.
    """
    if not _can_change() or not _all_can_run(program):
        return None
    groups: tuple[int, ...] = ()
    if device is not None:
        found = device.stat()
        if found.st_mode & _READ_WRITE != _READ_WRITE:
            if found.st_mode >> 3 & _READ_WRITE != _READ_WRITE or found.st_gid == 0:
                return None
            groups = (found.st_gid,)
    for _ in range(_TRIES):
        number = secrets.choice(_LENT)
        if _is_here("uid_map", number) and _is_here("gid_map", number) and not _is_an_account(number):
            return Identity(number, groups)
    return None


def _can_change() -> bool:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        effective = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
        return effective & (_SETUID | _SETGID) == _SETUID | _SETGID
    return False


def _all_can_run(program: Path) -> bool:
    try:
        ways = [each.stat().st_mode for each in program.parents]
        return program.stat().st_mode & _READ_RUN == _READ_RUN and all(mode & _RUN for mode in ways)
    except OSError:
        return False


def _is_here(table: str, number: int) -> bool:
    # Whether this user namespace has it; user_namespaces(7).
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/self/{table}").read_text(encoding="ascii").splitlines():
            first, _outside, count = map(int, line.split())
            if first <= number < first + count:
                return True
    return False


def _is_an_account(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True
