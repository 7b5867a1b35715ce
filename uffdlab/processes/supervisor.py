"""The supervisor: a small program between this process and a command, so that the command never outlives this process.

``supervisor.py NAME=VALUE… -- COMMAND…`` runs the command as its child. It waits for the first of three: the command
ends; the process ``owner`` ends in any way; the pipe ``owner_pipe``, whose other end only the owner has, closes. In the
latter two cases the command has ``grace`` seconds to end as well, and is then killed. When the supervisor itself is
killed, the kernel signals the command. :func:`wrap` describes the options.

It runs as ``python -ISB supervisor.py`` and imports nothing of uffdlab. The command's parent is this process and not a
thread of the owner, since the kernel's parent-death signal is tied to the thread that forked.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time

if __name__ != "__main__":
    from collections.abc import Sequence

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h

# Landlock: linux/landlock.h. The numbers of its system calls are the same on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE = 1 << 1
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # since ABI versions 2 and 3
_WRITES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove and create files of any type
_TCP = 1 << 0 | 1 << 1  # bind and connect, since ABI version 4
_SCOPES = 1 << 0 | 1 << 1  # no abstract sockets or signals to the outside, since ABI version 6
_DEVICES = "/dev/kvm", "/dev/null"

_KEEP = -2  # stdio: the supervisor's own


def wrap(
    command: Sequence[str],
    *,
    grace: float,
    owner_pipe: int = -1,
    stdio: int = _KEEP,
    bounds: str = "free",
    stop_signal: int = 0,
    output: int = -1,
    held: Sequence[int] = (),
    folder: str = "",
    marker: str = "",
    report: int = -1,
) -> list[str]:
    """Return the arguments that run a command under a supervisor whose owner is this process.

    Parameters
    ----------
    command : sequence of str
        A program, by its path or by its name in PATH, and its arguments.
    grace : float
        Seconds that the command has to end by itself after it was asked to stop.
    owner_pipe : int
        A descriptor of the supervisor, the read end of a pipe. The supervisor stops the command when the pipe closes.
    stdio : int
        What becomes the command's stdin and stdout: a descriptor, -1 for /dev/null, by default the supervisor's own.
    bounds : str
        ``"free"``: no bounds. ``"bounded"``: the command can gain no privileges, open no file for writing by its name
        and make no TCP connection, and it leaves no core dump. Numbers of a user and its groups, ``"61234,108"``:
        bounded, and run as that user.
    stop_signal : int
        The signal that asks the command to stop. The process group of supervisor and command gets it once, unless the
        owner has sent it already: vagrant does not clean up when it gets a second one. By default none.
    output : int
        The read end of the command's output. The supervisor reads it when the owner has ended: otherwise SIGPIPE would
        kill make before it has cleaned up.
    held : sequence of int
        Descriptors, for instance locks, that the supervisor keeps open until the command has ended. The command does
        not inherit them, since its daemons would keep them open.
    folder : str
        A folder that is removed with its files when the command has ended, if it exists.
    marker : str
        A file that is removed when the command has ended, unless the command was killed.
    report : int
        A descriptor that gets the command's wait status as decimal digits. By default the supervisor ends with the
        command's exit status or signal.
    """
    options = {
        "owner": os.getpid(), "grace": grace, "owner_pipe": owner_pipe, "stdio": stdio, "bounds": bounds,
        "stop_signal": stop_signal, "output": output, "held": ",".join(map(str, held)), "folder": folder,
        "marker": marker, "report": report,
    }  # fmt: skip
    return [sys.executable, "-ISB", __file__, *(f"{name}={value}" for name, value in options.items()), "--", *command]


class _Supervisor:
    def __init__(self, options: dict[str, str], command: list[str]) -> None:
        self._options, self._command = options, command
        self._pid = os.getpid()
        self._owner, self._owner_pipe, self._output = (int(options[name]) for name in ("owner", "owner_pipe", "output"))
        self._grace, self._stop_signal = float(options["grace"]), int(options["stop_signal"])
        self._held = [int(number) for number in options["held"].split(",") if number]
        self._stop_signal_sent = False

    def run(self) -> None:
        if self._stop_signal:
            signal.pthread_sigmask(signal.SIG_BLOCK, [self._stop_signal])
            signal.signal(self._stop_signal, self._on_stop_signal)
        child = os.fork()
        if child == 0:
            self._become_command()
        # Close the command's ends of its sockets: while they are open here, the owner does not see the end of file.
        low = 3
        for descriptor in sorted({self._output, self._owner_pipe, int(self._options["report"]), *self._held}):
            if descriptor >= low:
                os.closerange(low, descriptor)
                low = descriptor + 1
        os.closerange(low, os.sysconf("SC_OPEN_MAX"))
        if self._stop_signal:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [self._stop_signal])
        status = self._supervise(child)
        _remove(self._options["folder"])
        self._end_like(status)

    def _on_stop_signal(self, _number: int, _frame: object) -> None:
        # While the owner runs, it signals the whole group.
        self._stop_signal_sent = True

    def _supervise(self, child: int) -> int:
        # Returns the command's wait status.
        poll = select.poll()
        try:
            ended = os.pidfd_open(child)
        except OSError as error:
            os.write(2, f"pidfd_open: {error.strerror}; Linux 5.3 or newer is needed\n".encode())
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        poll.register(ended, select.POLLIN)
        if not self._ended_first(poll, ended) and not self._ends_in_time(poll, ended):
            if self._stop_signal:
                os.killpg(0, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]

    def _ended_first(self, poll: select.poll, ended: int) -> bool:
        # Wait for the first of the command and its owner to end, or for the pipe to close.
        try:
            owner = os.pidfd_open(self._owner)
        except OSError:  # it has already ended
            return False
        if os.getppid() != self._owner:  # it has already ended, and the pidfd belongs to another process
            return False
        watched = [owner] if self._owner_pipe < 0 else [owner, self._owner_pipe]
        for descriptor in watched:
            poll.register(descriptor, select.POLLIN)
        if ended in dict(poll.poll()):
            return True
        for descriptor in watched:
            poll.unregister(descriptor)
        return False

    def _ends_in_time(self, poll: select.poll, ended: int) -> bool:
        # Ask the command to stop, and read its output until it ends or the grace period is over.
        if self._stop_signal and not self._stop_signal_sent:
            os.killpg(0, self._stop_signal)
        if self._output >= 0:
            poll.register(self._output, select.POLLIN)
        until = time.monotonic() + self._grace
        while True:
            ready = dict(poll.poll(max(0.0, until - time.monotonic()) * 1000))
            if ended in ready:
                return True
            if time.monotonic() >= until:
                return False
            if self._output in ready and not os.read(self._output, 1 << 16):
                poll.unregister(self._output)

    def _end_like(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        marker, report = self._options["marker"], int(self._options["report"])
        if marker and code != -signal.SIGKILL:
            with contextlib.suppress(OSError):
                os.unlink(marker)  # noqa: PTH108 - pathlib takes longer to import than all else here
        if report >= 0:
            with contextlib.suppress(OSError):  # there may be no reader left
                os.write(report, b"%d\n" % status)
            return
        if code < 0:
            _no_core()
            with contextlib.suppress(OSError):  # the action of SIGKILL cannot be set
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code if code >= 0 else 128 - code)

    def _become_command(self) -> None:
        # Runs in the child.
        argv, bounds, stdio = self._command, self._options["bounds"], int(self._options["stdio"])
        if bounds != "free":
            try:
                _bound(bounds)
            except OSError as error:
                os.write(2, f"setting bounds to {argv[0]}: {error}\n".encode())
                os._exit(126)
        # After the bounds are set, since a change of user clears it.
        _prctl(_PR_SET_PDEATHSIG, self._stop_signal or signal.SIGKILL)
        if os.getppid() != self._pid:  # it ended before the line above
            os._exit(1)
        for descriptor in {self._output, *self._held} - {-1}:
            os.close(descriptor)
        if stdio != _KEEP:
            if stdio < 0:
                stdio = os.open(os.devnull, os.O_RDWR)
            os.dup2(stdio, 0)
            os.dup2(stdio, 1)
            os.close(stdio)
            _no_core()  # a core of QEMU would hold the guest's memory
        for number in {self._stop_signal, signal.SIGPIPE} - {0}:
            signal.signal(number, signal.SIG_DFL)
        if self._stop_signal:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [self._stop_signal])
        try:
            os.execvp(argv[0], argv)  # noqa: S606 - the purpose of a supervisor
        except OSError as error:
            who = "" if os.geteuid() == 0 or bounds == "free" else f" as user {os.geteuid()}"
            os.write(2, f"{argv[0]}{who}: {error.strerror}\n".encode())
            os._exit(127)


def _prctl(option: int, value: int) -> None:
    import ctypes  # noqa: PLC0415 - only in the child

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bound(bounds: str) -> None:
    # Runs in the child: restricts it irrevocably.
    import ctypes  # noqa: PLC0415 - before the change of user, who may not be able to read the library
    import struct  # noqa: PLC0415

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


def _remove(folder: str) -> None:
    if not folder:
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - pathlib takes longer to import than all else here
            os.unlink(f"{folder}/{name}")  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106


def main() -> None:
    """Run the command and supervise it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where the owner ignores it, no child could be waited for
    split = sys.argv.index("--")
    options = dict(argument.split("=", 1) for argument in sys.argv[1:split])
    _Supervisor(options, sys.argv[split + 1 :]).run()


if __name__ == "__main__":
    main()
