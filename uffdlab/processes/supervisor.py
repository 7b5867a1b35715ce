"""The keeper: a small program between the owner of a machine and QEMU or ssh, so that these never outlive the owner.

``keeper.py OWNER STDIO GRACE FOLDER BOUNDS COMMAND…`` runs the command as its child, with the descriptor STDIO as
stdin and stdout (-1: with /dev/null).  Descriptor 0 is a pipe whose other end the owner alone holds.  When that closes,
or the process OWNER ends however it ends, the command has GRACE seconds to end as well and is then killed; when the
keeper itself is killed, the kernel kills the command.  When the command ends, FOLDER is removed, if somebody made it,
with the files in it, and the command's wait status goes to descriptor 1 as decimal digits.

BOUNDS is "free"; or "bounded", and the command can gain no privileges, open no file for writing by its name, and make
no TCP connection; or a user and its groups by number, "61234,108", and the command is that user's besides.

It runs as ``python -ISB keeper.py`` and imports nothing of uffdlab.  Not a thread of the owner but this process is
the command's parent, since the kernel's parent-death signal is tied to the thread that forked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import struct
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
_LIFE, _STATUS = 0, 1

# Landlock: linux/landlock.h; the numbers of its system calls are the same for all processors.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE = 1 << 1
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # from its versions 2 and 3 on
_WRITES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove and make whatever kind of file
_TCP = 1 << 0 | 1 << 1  # bind and connect, from 4 on
_SCOPES = 1 << 0 | 1 << 1  # abstract sockets and signals stay within, from 6 on
_DEVICES = "/dev/kvm", "/dev/null"


def _bound(bounds: str) -> None:
    # In the child: what it cannot do from here on, whatever becomes of it.
    if bounds != "bounded":
        user, *groups = map(int, bounds.split(","))
        os.setgroups(groups)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:  # a kernel without Landlock
        return
    handled = [_WRITES | (_REFER if version > 1 else 0) | (_TRUNCATE if version > 2 else 0)]
    if version > 3:
        handled.append(_TCP)
    if version > 5:
        handled.append(_SCOPES)
    attributes = (ctypes.c_uint64 * len(handled))(*handled)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    for device in _DEVICES:
        with contextlib.suppress(OSError):
            opened = os.open(device, os.O_PATH | os.O_CLOEXEC)
            beneath = struct.pack("=Qi", _WRITE_FILE, opened)
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, beneath, 0)
            os.close(opened)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


def _command(argv: list[str], keeper: int, stdio: int, bounds: str) -> None:
    # In the child: become the command.
    if bounds != "free":
        try:
            _bound(bounds)
        except OSError as error:
            os.write(2, f"setting bounds to {argv[0]}: {error}\n".encode())
            os._exit(126)
    # After that, since a change of user clears it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != keeper:  # it died before the line above
        os._exit(1)
    if stdio < 0:
        stdio = os.open(os.devnull, os.O_RDWR)
    os.dup2(stdio, 0)
    os.dup2(stdio, 1)
    os.close(stdio)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core of QEMU would hold the guest's memory
    try:
        os.execv(argv[0], argv)  # noqa: S606 - that is what a keeper does
    except OSError as error:
        who = "" if os.geteuid() == 0 else f" as user {os.geteuid()}"
        os.write(2, f"{argv[0]}{who}: {error.strerror}\n".encode())
        os._exit(127)


def _ended_first(child: int, owner: int, grace: float) -> bool:
    # Wait for the first of the two to end, or for the pipe to close; then, if need be, a little for the child.
    try:
        ended = os.pidfd_open(child)
        owned = os.pidfd_open(owner)
    except OSError as error:
        if not isinstance(error, ProcessLookupError):
            os.write(2, f"pidfd_open: {error.strerror}; Linux 5.3 or newer is needed\n".encode())
        return False
    if os.getppid() != owner:  # it ended before, and the pidfd is another's
        return False
    poll = select.poll()
    for descriptor in (_LIFE, ended, owned):
        poll.register(descriptor, select.POLLIN)
    if ended in dict(poll.poll()):
        return True
    for descriptor in (_LIFE, owned):
        poll.unregister(descriptor)
    return bool(poll.poll(grace * 1000))


def _remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - pathlib takes longer to import than all else here
            os.unlink(f"{folder}/{name}")  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106


def main() -> None:
    """Run, watch, kill, remove, report."""
    owner, stdio, grace = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    folder, bounds, command = sys.argv[4], sys.argv[5], sys.argv[6:]
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _command(command, keeper, stdio, bounds)
    # The command's ends of its sockets: if they stayed open here, the owner would not see it end.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if not _ended_first(child, owner, grace):
        os.kill(child, signal.SIGKILL)
    _pid, status = os.waitpid(child, 0)
    _remove(folder)
    with contextlib.suppress(OSError):  # nobody may be left to read it
        os.write(_STATUS, b"%d\n" % status)


if __name__ == "__main__":
    main()
