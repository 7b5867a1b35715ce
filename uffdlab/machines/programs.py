"""Programs in the guest: they are sent with their libraries and run, and their output is received."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from uffdlab.errors import AgentError, LabClosed, MachineError, ProgramError, UsageError
from uffdlab.machines import elf
from uffdlab.machines.program_input import ProgramInput, Source
from uffdlab.processes import system_packages
from uffdlab.uapi.protocol.agent import (
    DiscardProgramFolder,
    FilesExist,
    KillProgram,
    MakeProgramFolder,
    PutFile,
    RunProgram,
    SendProgramInput,
)
from uffdlab.uapi.protocol.notifications import ProgramInputWanted, ProgramOutput

if TYPE_CHECKING:
    from uffdlab.machines import Machine
    from uffdlab.machines.rpc.client import MachineGone
    from uffdlab.uapi.protocol.notifications import Notification

    OnOutput = Callable[[str, bytes], None]

DEADLINE = 60.0  # seconds
MOST_OUTPUT = 64 << 20  # bytes

_STREAMS = {1: "stdout", 2: "stderr"}
_CHUNK = 1 << 18  # bytes of a file in one call, so that other calls need not wait long
_GRACE = 10.0  # seconds more for the agent to report that the deadline has passed
_DISCARDING = 1.0
_LIBRARY_ROUNDS = 8  # depth of libraries that need libraries
_GLIBC, _LIST = "ld-linux", {"LD_TRACE_LOADED_OBJECTS": "1"}  # glibc's loader, and how it lists a program's libraries
_UNWINDER = "libgcc_s.so.1"
_SHELL = "/bin/sh"


class Execution(Struct, frozen=True):
    """The result of a program that has run in the guest.

    Attributes
    ----------
    command : tuple of str
    status : int
        As in a shell: the exit status, or 128 + n if signal n ended it.
    stdout, stderr : bytes
        Its output.
    seconds : float
        How long it ran, measured on the host.
    """

    command: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Its standard output as text.  Bytes that are not UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")


class Programs:
    """Runs programs in a lab's guest.

    Parameters
    ----------
    machine : callable
        Returns the machine that the lab has now.
    """

    def __init__(self, machine: Callable[[], Machine]) -> None:
        self._machine = machine
        self._keys = itertools.count(1)

    def run(
        self,
        command: Sequence[str],
        push: Sequence[str | os.PathLike[str]] = (),
        deadline: float = DEADLINE,
        on_output: OnOutput | None = None,
        most_output: int = MOST_OUTPUT,
        env: Mapping[str, str] | None = None,
        stdin: Source | None = None,
    ) -> Execution:
        """Run a program; see :meth:`uffdlab.Lab.exec`."""
        argv, files = _checked(command, push)
        if env is not None and not _is_environment(env):
            raise UsageError(f"env={env!r}: give a dict of text by name, {{'LANG': 'C'}}, without NUL")
        if not deadline > 0:
            raise UsageError(f"deadline={deadline}: a program needs more than 0 seconds")
        if most_output < 0:
            raise UsageError(f"most_output={most_output}: it is a number of bytes, from 0 on")
        if not (stdin is None or isinstance(stdin, bytes) or _is_binary_file(stdin)):
            raise UsageError(f"stdin={stdin!r}: give bytes, or a file that was opened to read bytes: open(path, 'rb')")
        folder = self._machine().ask(MakeProgramFolder())
        try:
            for file in files:
                data = _pushed(file)
                self._put(f"{folder}/{file.name}", data, executable=os.access(file, os.X_OK))
                self._put_libraries(folder, file, data)
            try:
                return self._run(argv, folder, deadline, on_output, most_output, env, stdin)
            except ProgramError as error:
                if error.kind == "no-program" and not self._machine().ask(FilesExist([_SHELL]))[0]:
                    error.add_note(_no_tools())
                raise
        finally:
            # The agent does this even if nobody waits for the answer; a machine that hangs has had its deadline.
            with contextlib.suppress(MachineError, LabClosed):
                self._machine().ask(DiscardProgramFolder(folder), deadline=_DISCARDING)

    def _run(
        self,
        argv: Sequence[str],
        folder: str,
        deadline: float = DEADLINE,
        on_output: OnOutput | None = None,
        most_output: int = MOST_OUTPUT,
        env: Mapping[str, str] | None = None,
        stdin: Source | None = None,
    ) -> Execution:
        key = next(self._keys)
        output = _OutputQueue(key, most_output)
        given: ProgramInput | None = None
        request = RunProgram(key, list(argv), folder, deadline, most_output, dict(env or {}), stdin is not None)

        def on_notification(notification: Notification | MachineGone) -> None:
            if given is not None and notification == ProgramInputWanted(key):
                given.want()
            output.on_notification(notification)

        def ask() -> None:
            try:
                output.ended(self._machine().ask(request, deadline=deadline + _GRACE).status)
            except BaseException as error:  # noqa: BLE001 - raised in the thread of the caller
                output.ended(error)

        with contextlib.ExitStack() as stack:
            if stdin is not None:
                given = ProgramInput(stdin, lambda data: self._send_input(key, data))
                stack.callback(given.close)
            stack.callback(self._machine().notify_to(on_notification))
            started = time.monotonic()
            waiter = threading.Thread(target=ask, name="uffdlab-exec", daemon=True)
            waiter.start()
            try:
                end = output.wait(on_output)
            except BaseException:  # Ctrl-C, or an exception of on_output
                with contextlib.suppress(MachineError, AgentError, LabClosed):
                    self._machine().ask(KillProgram(key))
                waiter.join(_GRACE)
                raise
        waiter.join()
        if isinstance(end, ProgramError):
            raise _explained(end, argv, deadline, most_output, output)
        if isinstance(end, BaseException):
            raise end
        if given is not None and given.error is not None:
            raise given.error
        return Execution(tuple(argv), end, output.stdout, output.stderr, time.monotonic() - started)

    def _send_input(self, key: int, data: bytes) -> bool:
        # Returns whether the machine took it; if it is gone, the call that runs the program says so.
        try:
            self._machine().ask(SendProgramInput(key, data))
        except (MachineError, AgentError, LabClosed):
            return False
        return True

    def _put(self, path: str, data: bytes, *, executable: bool) -> None:
        for at in range(0, len(data) or 1, _CHUNK):
            self._machine().ask(PutFile(path, data[at : at + _CHUNK], at > 0, executable))

    def _put_libraries(self, folder: str, file: Path, data: bytes) -> None:
        # The guest's loader lists which libraries are missing, and the host's loader where they are.
        try:
            loader = elf.interpreter(data)
        except elf.NotElf:
            return
        if not loader:
            return
        host_libraries: dict[str, Path] | None = None
        if not self._machine().ask(FilesExist([loader]))[0]:
            self._put(loader, _read(Path(loader), file), executable=True)
        if _GLIBC not in loader or not os.access(file, os.X_OK):
            return
        self._put_unwinder(folder, file, data)
        asked: set[str] = set()
        for _ in range(_LIBRARY_ROUNDS):
            listed = self._run([f"./{file.name}"], folder, env=_LIST)
            missing = {name for name, found in _listed(listed.text).items() if found is None} - asked
            if not missing:
                return
            host_libraries = _libraries(file) if host_libraries is None else host_libraries
            for name in sorted(missing):
                path = host_libraries.get(name)
                if path is None:
                    raise UsageError(
                        f"{file} needs {name}, which is neither in the guest nor found here; link it statically"
                    )
                self._put(f"{folder}/.lib/{name}", path.read_bytes(), executable=False)
            asked |= missing

    def _put_unwinder(self, folder: str, file: Path, data: bytes) -> None:
        # glibc loads it when a thread is first cancelled, so the loader does not list it.
        if not any(name in data for name in (b"pthread_cancel", b"pthread_exit")):
            return
        where = f"{folder}/.lib/{_UNWINDER}"
        there = self._machine().ask(FilesExist([where, f"/usr/lib/{_UNWINDER}"]))
        if any(there):
            return
        libc = _libraries(file).get("libc.so.6")
        if libc is not None and (libc.parent / _UNWINDER).is_file():
            self._put(where, (libc.parent / _UNWINDER).read_bytes(), executable=False)


class _OutputQueue:
    # Passes a program's output from the machine's reader thread to the thread that waits for it.

    def __init__(self, key: int, most_bytes: int) -> None:
        self._key = key
        self._bytes_left = most_bytes  # bytes; more from the agent is dropped
        self._arrived: queue.SimpleQueue[tuple[str, bytes] | int | BaseException] = queue.SimpleQueue()
        self._collected: dict[str, list[bytes]] = {stream: [] for stream in _STREAMS.values()}

    def on_notification(self, notification: Notification | MachineGone) -> None:
        if not isinstance(notification, ProgramOutput) or notification.key != self._key:
            return
        self._bytes_left -= len(notification.data)
        if self._bytes_left >= 0:
            self._arrived.put((_STREAMS[notification.stream], notification.data))

    def ended(self, how: int | BaseException) -> None:
        self._arrived.put(how)

    def wait(self, on_output: OnOutput | None) -> int | BaseException:
        while isinstance(item := self._arrived.get(), tuple):
            stream, data = item
            self._collected[stream].append(data)
            if on_output:
                on_output(stream, data)
        return item

    @property
    def stdout(self) -> bytes:
        return b"".join(self._collected["stdout"])

    @property
    def stderr(self) -> bytes:
        return b"".join(self._collected["stderr"])


def _no_tools() -> str:
    return (
        "The guest has no shell and no tools: they come from this host's busybox, which is not installed or not usable "
        f"({system_packages.how_to_install('busybox')})"
    )


def _is_environment(env: object) -> bool:
    return isinstance(env, Mapping) and all(
        isinstance(text, str) and "\0" not in text for pair in env.items() for text in pair
    )


def _is_binary_file(source: object) -> bool:
    return hasattr(source, "read") and not isinstance(source, io.TextIOBase)


def _checked(command: Sequence[str], push: Sequence[str | os.PathLike[str]]) -> tuple[list[str], list[Path]]:
    if (
        not isinstance(command, Sequence)
        or isinstance(command, str)
        or not command
        or not all(isinstance(each, str) for each in command)
    ):
        raise UsageError(
            f"command={command!r}: give a list of arguments, ['uname', '-r']; for a shell's line, ['sh', '-c', line]"
        )
    if not command[0] or any("\0" in each for each in command):
        raise UsageError(f"command={list(command)!r}: the first argument names a program, and no argument contains NUL")
    if isinstance(push, str | os.PathLike) or not isinstance(push, Iterable):
        raise UsageError(f"push={push!r}: give a list of files, ['./program']")
    files = [Path(file) for file in push]
    for file in files:
        if not file.is_file():
            raise UsageError(f"push: {file} is not a file here")
    names = [file.name for file in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"push: two files are called {twice[0]}; both go into one folder of the guest")
    return list(command), files


def _explained(
    error: ProgramError, argv: Sequence[str], deadline: float, most_output: int, output: _OutputQueue
) -> ProgramError:
    advice = {
        "program-late": f"; it had {deadline:g} s: give it more with deadline=… (--deadline)",
        "program-output": f", {most_output} bytes: write to a file in the guest, or allow more with most_output=…",
    }
    made = ProgramError(f"{' '.join(argv)}: {error}{advice.get(error.kind, '')}", kind=error.kind, data=error.data)
    made.stdout, made.stderr = output.stdout, output.stderr
    return made


def _pushed(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"push: {file} cannot be read here: {error.strerror}") from error


def _read(path: Path, of: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{of} asks for the loader {path}: {error.strerror}; link it statically") from error


def _libraries(file: Path) -> dict[str, Path]:
    try:
        done = subprocess.run(
            [file.absolute()], env={**os.environ, **_LIST}, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"the loader here cannot list the libraries of {file}: {error}; link it statically") from error
    return {name: path for name, path in _listed(done.stdout).items() if path is not None}


def _listed(text: str) -> dict[str, Path | None]:
    # Each line is "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)" or "libz.so.1 => not found".
    found: dict[str, Path | None] = {}
    for line in text.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow:
            path = rest.rpartition(" (")[0]
            found[name] = Path(path) if path.startswith("/") else None
    return found
