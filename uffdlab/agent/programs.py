"""Programs that run beside the target for the host, from their start until everything of them is removed.

Each has its own session.  Its output goes to the host at once, in ``program-output`` notifications.  Its stdin is
/dev/null, or a pipe: with ``program-input`` the agent asks the host for the next bytes, when the pipe has taken those
before.  The response to ``agent.exec`` is sent when it has ended.
"""

from __future__ import annotations

import os
import time
from select import POLLIN, POLLOUT

from uffdlab.agent.pidfd import Process
from uffdlab.agent.rpc import Refusal
from uffdlab.agent.signals import SIGINT, SIGKILL, SIGPIPE, SIGXFSZ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from uffdlab.agent.rpc import Channel

_CHUNK = 1 << 16
_END_DEADLINE = 2.0  # seconds from SIGKILL until the agent stops waiting for a program
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class _Program:
    def __init__(
        self, number: int, key: int, pid: int, outputs: dict[int, int], stdin: int, until: float, most: int
    ) -> None:
        self.number = number  # of the host's request
        self.key = key  # the host's identifier of it
        self.process = Process(pid)
        self.outputs = outputs  # the read end of a pipe → 1 or 2
        self.stdin = stdin  # the write end of a pipe; -1 after the last byte, or if it has none
        self.input = memoryview(b"")  # bytes from the host that the pipe has not taken
        self.until = until
        self.left = most  # bytes that it can still write
        self.refusal: Refusal | None = None  # why it was killed

    def close_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
        self.stdin, self.input = -1, memoryview(b"")


class Programs:
    """All programs that run for one host.

    Parameters
    ----------
    host : Channel
        Receives their output and their end.
    """

    def __init__(self, host: Channel) -> None:
        self._host = host
        self._running: dict[int, _Program] = {}
        self._folders: set[str] = set()
        self.methods: dict[str, Any] = {
            "agent.exists": lambda paths: [os.path.exists(path) for path in paths],
            "agent.put": put,
            "agent.exec_folder": self._folder,
            "agent.exec_discard": self._discard,
            "agent.exec_input": self._input,
            "agent.exec_kill": self._kill_one,
        }

    def start(
        self,
        number: int,
        key: int,
        argv: list[str],
        folder: str,
        seconds: float,
        most: int,
        environment: dict[str, str],
        stdin: bool = False,
    ) -> None:
        """Start a program in `folder`.  Request `number` is answered with {"status", "signal"} when it has ended.

        Parameters
        ----------
        number : int
            The number of the request.
        key : int
            Identifies it in ``program-output`` and ``agent.exec_kill``.
        argv : list of str
            The program, which is searched in `folder` and then in PATH, and its arguments.
        folder : str
            A result of ``agent.exec_folder``.
        seconds : float
            After these the program is killed and the request refused with ``program-late``.
        most : int
            Bytes that it can write, both streams together.  With more it is killed and the request refused with
            ``program-output``.
        environment : dict
            Variables that it gets in addition to the agent's own.
        stdin : bool
            Whether the host has input for it; else its stdin is /dev/null.

        Raises
        ------
        Refusal
            ``no-program`` or ``not-executable``.
        """
        if key in self._running:
            raise Refusal("usage", f"program {key} has not ended; each program needs its own key")
        until = time.monotonic() + seconds
        path = _find(argv[0], folder)
        around = {
            "PATH": f"{folder}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": f"{folder}/.lib:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":"),
        }
        outputs: dict[int, int] = {}
        theirs: dict[int, int] = {}
        to_stdin = -1
        program = None
        try:
            for stream in (_STDOUT, _STDERR):
                ours, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                outputs[ours], theirs[end] = stream, stream
                os.set_blocking(end, True)
            if stdin:
                read_end, to_stdin = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(to_stdin, False)
                theirs[read_end] = _STDIN
            pid = _spawn(path, argv, folder, {**os.environ, **around, **environment}, theirs)
            program = _Program(number, key, pid, outputs, to_stdin, until, most)
        finally:
            for end in (*theirs, *(() if program else (*outputs, to_stdin))):
                if end >= 0:
                    os.close(end)
        self._running[key] = program
        if stdin:
            self._host.notify("program-input", key)

    def descriptors(self) -> dict[int, int]:
        """Return every descriptor, with what to poll it for, as poll(2) names it; 0 for nothing."""
        found: dict[int, int] = {}
        for program in self._running.values():
            found |= dict.fromkeys((program.process.fd, *program.outputs), POLLIN)
            if program.stdin >= 0:
                found[program.stdin] = POLLOUT if program.input else 0
        return found

    def handle_ready(self, ready: set[int]) -> None:
        """Pass on the input and the output of programs, and the end of those that have ended."""
        for program in list(self._running.values()):
            if program.stdin in ready:
                self._feed(program)
            for fd in ready & program.outputs.keys():
                self._pass_on(program, fd)
            if program.process.fd in ready:
                self._ended(program)

    def next_deadline(self) -> float:
        """Return the earliest deadline of a program, in seconds of time.monotonic()."""
        return min((program.until for program in self._running.values()), default=float("inf"))

    def enforce_deadlines(self) -> None:
        """Kill the programs that have not ended by their deadline."""
        now = time.monotonic()
        for program in [each for each in self._running.values() if each.until <= now]:
            if program.refusal:
                program.refusal.args = (f"{program.refusal} and did not end by SIGKILL either: it hangs in the kernel",)
                self._forget(program)
                self._host.respond(program.number, program.refusal.as_map(), None)
            else:
                self._kill(program, Refusal("program-late", "the program did not end by its deadline and was killed"))

    def end_all(self) -> None:
        """Kill all programs and remove their folders, when the host has closed the stream."""
        for program in list(self._running.values()):
            program.process.signal_group(SIGKILL)
            self._forget(program)
        for folder in list(self._folders):
            self._discard(folder)

    # --- implementation

    def _folder(self) -> str:
        number = len(self._folders)
        while True:
            path = f"/tmp/uffdlab-{os.getpid()}-{number}"  # noqa: S108 - mkdir fails if it exists
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                number += 1
                continue
            self._folders.add(path)
            return path

    def _discard(self, folder: str) -> None:
        if folder not in self._folders:
            raise Refusal("usage", f"{folder} is not the folder of a program")
        self._folders.discard(folder)
        try:
            os.rmdir(folder)
        except OSError:  # ENOTEMPTY
            _remove(folder)

    def _input(self, key: int, data: bytes) -> None:
        program = self._running.get(key)
        if program is None or program.stdin < 0:
            return  # it has ended or closed its stdin while the host sent this
        if program.input:
            raise Refusal("usage", f"program {key} has not taken the input before this")
        if data:
            program.input = memoryview(data)
            self._feed(program)
        else:
            program.close_stdin()

    def _feed(self, program: _Program) -> None:
        # poll(2) reports a pipe that nobody reads any more as ready, too.
        try:
            while program.input:
                program.input = program.input[os.write(program.stdin, program.input) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            program.close_stdin()
            return
        self._host.notify("program-input", program.key)

    def _kill_one(self, key: int) -> None:
        if key in self._running and not self._running[key].refusal:
            self._kill(self._running[key], Refusal("program-killed", "the program was killed on request"))

    def _kill(self, program: _Program, why: Refusal) -> None:
        program.refusal = why
        program.until = time.monotonic() + _END_DEADLINE
        program.process.signal_group(SIGKILL)

    def _pass_on(self, program: _Program, fd: int) -> bool:
        # Returns whether there may be more.
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            os.close(fd)
            del program.outputs[fd]
            return False
        if program.refusal:
            return True
        data, rest = data[: program.left], data[program.left :]
        program.left -= len(data)
        if data:
            self._host.notify("program-output", program.key, program.outputs[fd], data)
        if rest:
            self._kill(program, Refusal("program-output", "the program wrote more than it may and was killed"))
        return True

    def _ended(self, program: _Program) -> None:
        program.process.signal_group(SIGKILL)  # its background processes; it is not reaped yet
        for fd in list(program.outputs):
            until = time.monotonic() + _END_DEADLINE
            while self._pass_on(program, fd) and time.monotonic() < until:
                pass
        status = program.process.status()
        self._forget(program)
        if program.refusal:
            self._host.respond(program.number, program.refusal.as_map(), None)
            return
        assert status is not None  # its pidfd was readable
        code = os.waitstatus_to_exitcode(status)
        end = {"status": code if code >= 0 else 128 - code, "signal": max(0, -code)}
        self._host.respond(program.number, None, end)

    def _forget(self, program: _Program) -> None:
        del self._running[program.key]
        program.process.close()
        program.close_stdin()
        for fd in program.outputs:
            os.close(fd)
        # Reap its background processes, which are now children of this one, the guest's first process.
        until = time.monotonic() + _END_DEADLINE
        try:
            while time.monotonic() < until:
                if os.waitpid(-program.process.pid, os.WNOHANG) == (0, 0):
                    time.sleep(0.001)
        except ChildProcessError:
            pass


def _spawn(path: str, argv: list[str], folder: str, environment: dict[str, str], streams: dict[int, int]) -> int:
    # Starts it with descriptors as its streams, by their numbers; returns the PID.
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, _STDIN, os.devnull, os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, end, stream) for end, stream in streams.items()]
    outer = os.getcwd()
    try:
        os.chdir(folder)
        return os.posix_spawn(
            path,
            argv,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(SIGINT, SIGPIPE, SIGXFSZ),
        )
    except OSError as error:
        raise Refusal(
            "not-executable",
            f"{argv[0]} is there and does not start: {error.strerror}. A script needs a first line #!… that names "
            "a program of the guest; a program must be built for its processor, and its loader must be there",
        ) from error
    finally:
        os.chdir(outer)


def _remove(folder: str) -> None:
    for where, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(f"{where}/{name}")
        for name in folders:
            path = f"{where}/{name}"
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    os.rmdir(folder)


def put(path: str, data: bytes, append: bool, executable: bool) -> None:
    """Write a file, or append to it, and create its folder if needed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    how = os.O_APPEND if append else os.O_EXCL
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o755 if executable else 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def _find(name: str, folder: str) -> str:
    where = [folder] if "/" in name else [folder, *os.environ.get("PATH", os.defpath).split(":")]
    there = ""
    for each in where:
        path = os.path.join(each, name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            there = there or path
    if there:
        raise Refusal("not-executable", f"{there} is there and not executable: chmod +x it before it is pushed")
    places = "" if "/" in name else f" (searched among the pushed files and in {':'.join(where[1:])})"
    raise Refusal("no-program", f"there is no program {name!r} in the guest{places}")
