"""The common base of machines that run as a supervised process: they ask the agent, and end, however the owner ends."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from uffdlab import errors
from uffdlab.machines.rpc.client import Client

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from uffdlab.machines.rpc.client import MachineGone
    from uffdlab.processes.console import Console
    from uffdlab.processes.supervised import SupervisedProcess
    from uffdlab.uapi.protocol.base import Method
    from uffdlab.uapi.protocol.notifications import HelloFacts, Notification

_Answer = TypeVar("_Answer")

_REASON_DEADLINE = 1.0  # seconds to wait for the reason when a connection ends
_MOST_WITHOUT_CPU = 10  # times the deadline


class BaseMachine:
    """A machine whose agent is reached through a supervised process.

    It ends when it is closed, when there is no reference to it any more, and when this process ends in any way.  A
    forked child cannot use it.

    Parameters
    ----------
    process : SupervisedProcess
        This object ends it.
    agent : socket
        The agent's stream; this object closes it.
    console : Console
        The console that `process` writes to.
    resources : ExitStack
        Resources released after the process has ended.
    target : socket, optional
        A stream directly to the target, if there is one; this object closes it.
    """

    name = ""
    _program = ""  # the name of the process, for errors

    def __init__(
        self,
        process: SupervisedProcess,
        agent: socket.socket,
        console: Console,
        resources: ExitStack,
        target: socket.socket | None = None,
    ) -> None:
        self._owner = os.getpid()
        self._closed = False
        self._closing = threading.Lock()
        self._hello: HelloFacts | None = None
        self._process, self._console, self._resources = process, console, resources
        # The callbacks have only a weak reference to this object, so that an abandoned machine is collected.
        reference = weakref.ref(self)
        self._client = Client(
            agent,
            make_lost_error=partial(lost_error, reference),
            make_late_error=partial(late_error, reference),
            make_malformed_error=partial(_malformed, reference),
            target=target,
        )
        self._finalizer = weakref.finalize(self, _end, process, self._client, resources)
        _MACHINES.add(self)

    # --- the Machine protocol

    @property
    def hello(self) -> HelloFacts:
        """The facts of the agent's hello."""
        if self._hello is None:
            raise errors.UsageError("the machine has not started yet: call wait_for_hello() first")
        return self._hello

    def ask(self, request: Method[_Answer], *, deadline: float = 10.0) -> _Answer:
        """Send a request to the agent or the target; see :class:`uffdlab.machines.Machine`."""
        self._check()
        return self._client.ask(request, deadline)

    def notify_to(self, callback: Callable[[Notification | MachineGone], None]) -> Callable[[], None]:
        """Call `callback` with each notification; return a function that unsubscribes it."""
        return self._client.subscribe(callback)

    def console(self) -> str:
        """Return the console output so far."""
        return self._console.text()

    def close(self) -> None:
        """End the machine.  Closing a closed machine does nothing."""
        if os.getpid() != self._owner:
            return
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._finalizer()
        _MACHINES.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """PIDs, on this host, of the supervisor and its program, while they run."""
        return self._process.pids

    # --- starting

    def wait_for_hello(self, deadline: float) -> None:
        """Wait for the agent's hello, at most `deadline` seconds.  Time without a CPU does not count."""
        self._hello = self._client.hello(deadline, self._patience(deadline))

    def _patience(self, deadline: float) -> Callable[[float], float]:
        # Where many machines start at once, a process waits for a CPU.  That time does not count, up to a limit.
        before = self._process.seconds_without_cpu()

        def more(waited: float) -> float:
            without_cpu = self._process.seconds_without_cpu() - before
            return deadline + min(without_cpu, _MOST_WITHOUT_CPU * deadline) - waited

        return more

    # --- ending

    def _check(self) -> None:
        if os.getpid() != self._owner:
            raise errors.MachineLost("this machine belongs to the process that started it; start one of your own here")
        if self._closed:
            raise errors.LabClosed("the machine was closed")

    def _crash(self) -> errors.UffdlabError | None:
        # The crash that the console shows, if it shows one.
        return None

    def _gone(self, reason: str) -> errors.UffdlabError:
        # Why the process has ended, or else why its stream broke.
        how = self._process.how_it_ended()
        return errors.MachineLost(
            f"the machine is gone: {self._program} {how}" if how else f"the machine is gone: {reason}",
            # The message already has the stderr of the process.
            console=self._console.tail() if self._process.has_console else "",
        )

    def explain_lost(self, reason: str) -> errors.UffdlabError:
        """Return the error for a lost connection, after a short wait for the process to end."""
        if self._closed:
            return errors.LabClosed("the machine was closed")
        self._process.ended.wait(_REASON_DEADLINE)
        return self._crash() or self._gone(reason)

    def explain_late(self, reason: str) -> errors.UffdlabError:
        """Return the error for an answer that did not come in time."""
        if self._closed:
            return errors.LabClosed("the machine was closed")
        return self._crash() or errors.MachineTimeout(
            f"{reason}: the machine hangs, or this host is too busy for it. Ask again, or start over with a new lab",
            console=self._console.tail(),
        )

    def disown(self) -> None:
        """Release everything in a forked child without ending the parent's machine."""
        self._finalizer.detach()
        self._process.disown()
        self._client.disown()


_MACHINES: weakref.WeakSet[BaseMachine] = weakref.WeakSet()


def _disown_all() -> None:
    for machine in list(_MACHINES):
        with suppress(Exception):
            machine.disown()
    _MACHINES.clear()


os.register_at_fork(after_in_child=_disown_all)


def _end(process: SupervisedProcess, client: Client, resources: ExitStack) -> None:
    # Runs once: on close, on collection, or at the interpreter's exit.
    with resources:
        client.fail(errors.LabClosed("the machine was closed"))
        process.kill()
        client.close(errors.LabClosed("the machine was closed"))


def lost_error(reference: weakref.ref[Any], reason: str) -> errors.UffdlabError:
    """Return the error for a lost connection of a machine, which may have been collected."""
    machine: BaseMachine | None = reference()
    return machine.explain_lost(reason) if machine is not None else errors.LabClosed("the machine was closed")


def late_error(reference: weakref.ref[Any], reason: str) -> errors.UffdlabError:
    """Return the error for a late answer of a machine, which may have been collected."""
    machine: BaseMachine | None = reference()
    return machine.explain_late(reason) if machine is not None else errors.LabClosed("the machine was closed")


def _malformed(reference: weakref.ref[BaseMachine], reason: str) -> errors.UffdlabError:
    machine = reference()
    return errors.ProtocolError(reason, console=machine._console.tail() if machine is not None else "")  # noqa: SLF001
