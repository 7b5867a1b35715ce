"""What every machine that runs as a kept process has in common: an agent that answers, and an end in every way."""

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
    from uffdlab.uapi.protocol import HelloFacts, Method, Notification

_Answer = TypeVar("_Answer")

_EXPLAIN = 1.0  # seconds to wait for the reason when a connection ends


class BaseMachine:
    """A machine whose agent is reached through a kept process.

    It ends when it is closed, when it is no longer referred to, and when this process ends, however that ends.  In a
    forked child it is not there.

    Parameters
    ----------
    process : SupervisedProcess
        The object ends it.
    agent : socket
        The agent's stream; this object closes it.
    console : Console
        What `process` feeds.
    below : ExitStack
        What is to be closed when the process has ended.
    target : socket, optional
        A stream straight to the target, where there is one; this object closes it.
    """

    name = ""
    _program = ""  # the process, in words

    def __init__(
        self,
        process: SupervisedProcess,
        agent: socket.socket,
        console: Console,
        below: ExitStack,
        target: socket.socket | None = None,
    ) -> None:
        self._owner = os.getpid()
        self._closed = False
        self._closing = threading.Lock()
        self._hello: HelloFacts | None = None
        self._process, self._console, self._below = process, console, below
        # These hold what they need of this object by weak reference, so that an abandoned machine is collected.
        here = weakref.ref(self)
        self._client = Client(
            agent,
            lost=partial(lost, here),
            late=partial(late, here),
            malformed=partial(_malformed, here),
            target=target,
        )
        self._finalizer = weakref.finalize(self, _end, process, self._client, below)
        _LIVING.add(self)

    # --- the Machine protocol

    @property
    def hello(self) -> HelloFacts:
        """What the agent said first."""
        if self._hello is None:
            raise errors.UsageError("the machine is not up: its agent has not been waited for")
        return self._hello

    def ask(self, request: Method[_Answer], *, deadline: float = 10.0) -> _Answer:
        """Ask the agent or the target; see :class:`uffdlab.machines.Machine`."""
        self._check()
        return self._client.ask(request, deadline)

    def notify_to(self, callback: Callable[[Notification | MachineGone], None]) -> Callable[[], None]:
        """Call `callback` with each notification; return what ends that."""
        return self._client.subscribe(callback)

    def console(self) -> str:
        """Return what the console has said so far."""
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
        _LIVING.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers, on this host, of the supervisor and of its program, while they run."""
        return self._process.pids

    # --- coming up

    def wait_for_hello(self, deadline: float) -> None:
        """Wait until the agent has said hello."""
        self._hello = self._client.hello(deadline)

    # --- how it ends

    def _check(self) -> None:
        if os.getpid() != self._owner:
            raise errors.MachineLost("this machine belongs to the process that started it; start one of your own here")
        if self._closed:
            raise errors.LabClosed("the machine was closed")

    def _crash(self) -> errors.UffdlabError | None:
        # The crash that the console tells of, if it does.
        return None

    def _gone(self, reason: str) -> errors.UffdlabError:
        # Why the process is gone, or else why its stream broke.
        how = self._process.how_it_ended()
        return errors.MachineLost(
            f"the machine is gone: {self._program} {how}" if how else f"the machine is gone: {reason}",
            # What the process said is told already.
            console=self._console.tail() if self._process.has_console else "",
        )

    def explain_lost(self, reason: str) -> errors.UffdlabError:
        """Return why the machine is gone, once that is known."""
        if self._closed:
            return errors.LabClosed("the machine was closed")
        self._process.ended.wait(_EXPLAIN)
        return self._crash() or self._gone(reason)

    def explain_late(self, reason: str) -> errors.UffdlabError:
        """Return why there was no answer in time."""
        if self._closed:
            return errors.LabClosed("the machine was closed")
        return self._crash() or errors.MachineTimeout(
            f"{reason}: the machine hangs, or this host is too busy for it. Ask again, or start over with a new lab",
            console=self._console.tail(),
        )

    def disown(self) -> None:
        """In a forked child: let go of everything without ending the parent's machine."""
        self._finalizer.detach()
        self._process.disown()
        self._client.disown()


_LIVING: weakref.WeakSet[BaseMachine] = weakref.WeakSet()


def _disown_all() -> None:
    for machine in list(_LIVING):
        with suppress(Exception):
            machine.disown()
    _LIVING.clear()


os.register_at_fork(after_in_child=_disown_all)


def _end(process: SupervisedProcess, client: Client, below: ExitStack) -> None:
    # Runs once: on close, on collection, or at the interpreter's exit.
    with below:
        client.fail(errors.LabClosed("the machine was closed"))
        process.kill()
        client.close(errors.LabClosed("the machine was closed"))


def lost(here: weakref.ref[Any], reason: str) -> errors.UffdlabError:
    """Return why the machine is gone; it may be collected by now."""
    machine: BaseMachine | None = here()
    return machine.explain_lost(reason) if machine is not None else errors.LabClosed("the machine was closed")


def late(here: weakref.ref[Any], reason: str) -> errors.UffdlabError:
    """Return why it did not answer in time; it may be collected by now."""
    machine: BaseMachine | None = here()
    return machine.explain_late(reason) if machine is not None else errors.LabClosed("the machine was closed")


def _malformed(here: weakref.ref[BaseMachine], reason: str) -> errors.UffdlabError:
    machine = here()
    return errors.ProtocolError(reason, console=machine._console.tail() if machine is not None else "")  # noqa: SLF001
