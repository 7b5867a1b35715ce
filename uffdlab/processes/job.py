"""Run a command that ends when this process ends, even if this one is killed."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from uffdlab.processes import supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import IO

_TICK = 0.2  # s between two checks of the deadline, and between two calls of on_tick
_GRACE = 10.0  # s a child has to clean up after SIGTERM
_TAIL_LINES = 400


class JobTimeout(Exception):
    """A job did not end before its deadline."""


class Job:
    """A command in its own process group, whose output is read line by line.

    Ctrl-C reaches only this process, which then sends `stop_signal` to the group, so that make can delete its
    incomplete targets. The command's parent is a supervisor (supervisor.py). If this process ends in another way, the
    supervisor sends `stop_signal` once to the group, reads its output, and kills it after `grace`.

    Parameters
    ----------
    command : sequence of str
    cwd : Path, optional
    env : mapping, optional
        By default this process's own environment.
    stdin : file, optional
        The command's stdin, by default /dev/null.
    log : binary file, optional
        Receives everything that the command writes.
    inherit : sequence of int
        File descriptors that the command inherits. A lock among them is held as long as the command runs.
    stop_signal : Signals
        The signal that ends the command, by default SIGTERM.
    grace : float
        Seconds that the command has after the signal, before it is killed.
    held : sequence of int
        File descriptors, for instance locks, that the supervisor holds until the command has ended.
    marker : Path, optional
        A file that is removed when the command has ended, unless the command was killed.

    Attributes
    ----------
    tail : deque of str
        The last lines of its output.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | None = None,
        log: IO[bytes] | None = None,
        inherit: Sequence[int] = (),
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = _GRACE,
        held: Sequence[int] = (),
        marker: Path | None = None,
    ) -> None:
        reading, writing = os.pipe()
        supervised = supervisor.wrap(
            [str(argument) for argument in command],
            grace=grace,
            stop_signal=int(stop_signal),
            output=reading,
            held=held,
            marker=str(marker or ""),
        )
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._log = log
        self._stop_signal, self._grace = stop_signal, grace
        self._rest = b""  # the beginning of an incomplete line
        self._output = os.fdopen(reading, "rb", buffering=0)
        try:
            self._process = subprocess.Popen(
                supervised,
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=stdin if stdin is not None else subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                pass_fds=(reading, *inherit, *held),
                process_group=0,
            )
        except BaseException:
            self._output.close()
            raise
        finally:
            os.close(writing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait(
        self,
        deadline: float,
        *,
        on_line: Callable[[str], None] | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> int:
        """Read until the child has ended, and return its exit status.

        Raises
        ------
        JobTimeout
            It had not ended after `deadline` seconds.
        """
        output = self._output
        until = time.monotonic() + deadline
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                if time.monotonic() > until:
                    raise JobTimeout
                if on_tick is not None:
                    on_tick()
                if not selector.select(_TICK):
                    # A grandchild that outlives the child may hold the pipe open, so check whether the child ended.
                    if self._process.poll() is not None:
                        break
                    continue
                chunk = os.read(output.fileno(), 1 << 16)
                if not chunk:
                    break
                self._take(chunk, on_line)
        self._take(b"\n" if self._rest else b"", on_line)
        if on_tick is not None:
            on_tick()
        try:
            status = self._process.wait(max(0.0, until - time.monotonic()) + _TICK)
        except subprocess.TimeoutExpired:
            raise JobTimeout from None
        return status

    def end(self) -> None:
        """End the process group if it still runs, and kill it after the grace period."""
        process = self._process
        try:
            if process.poll() is None:
                self._signal(self._stop_signal)
                self._drain(time.monotonic() + self._grace)
        finally:
            if process.poll() is None:
                self._signal(signal.SIGKILL)
                process.wait()
            self._output.close()

    def _drain(self, until: float) -> None:
        # A command that waits because its pipe is full could not clean up.
        process = self._process
        while process.poll() is None and time.monotonic() < until:
            if not select.select([self._output], [], [], _TICK)[0]:
                continue
            chunk = os.read(self._output.fileno(), 1 << 16)
            self._take(chunk, None)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _take(self, chunk: bytes, on_line: Callable[[str], None] | None) -> None:
        if self._log is not None:
            self._log.write(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            self.tail.append(text)
            if on_line is not None:
                on_line(text)


def run(
    command: Sequence[str | Path],
    *,
    deadline: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    log: IO[bytes] | None = None,
    inherit: Sequence[int] = (),
    on_line: Callable[[str], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> tuple[int, str]:
    """Run a command to its end and return its exit status and the last lines of its output.

    Raises
    ------
    JobTimeout
        The command had not ended after `deadline` seconds.
    """
    with Job(command, cwd=cwd, env=env, stdin=stdin, log=log, inherit=inherit) as child:
        status = child.wait(deadline, on_line=on_line, on_tick=on_tick)
        return status, "\n".join(child.tail)
