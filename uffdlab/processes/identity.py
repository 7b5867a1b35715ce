"""Choose an unprivileged user for a program that root starts: a number of its own, which owns nothing on this host."""

from __future__ import annotations

import pwd
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# The range of systemd's DynamicUser= (systemd.exec(5)), so no account of this host should have such a number.
_DYNAMIC_USERS = range(61184, 65520)
_SETGID, _SETUID = 1 << 6, 1 << 7  # linux/capability.h
_READ_WRITE, _READ_RUN, _RUN = 0o6, 0o5, 0o1  # the mode bits for others
_TRIES = 100


@dataclass(frozen=True)
class Identity:
    """A user, its group of the same number, and its supplementary groups."""

    number: int
    groups: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ",".join(map(str, (self.number, *self.groups)))


def unprivileged(program: Path, device: Path | None = None) -> Identity | None:
    """Return an unprivileged user for a program, or None if it must run as the present user.

    The result is None if this process cannot change its user: it is not root, or its user namespace has no other
    users. It is also None if only root can run `program` or open `device`.

    Parameters
    ----------
    program : Path
        The program's file.
    device : Path, optional
        A device that the program must open for reading and writing.
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
        number = secrets.choice(_DYNAMIC_USERS)
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
    # Returns whether this user namespace maps the number; user_namespaces(7).
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
