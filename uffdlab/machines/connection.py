"""Connection: a lab's machine, from its start to its end, and the requests to it."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from uffdlab.errors import LabClosed, MachineError, UsageError
from uffdlab.machines import Machine, clock, factory
from uffdlab.uapi.protocol.agent import Ping, ReadClock
from uffdlab.uapi.protocol.base import AgentMethod, Method

if TYPE_CHECKING:
    from uffdlab.machines.rpc.client import MachineGone
    from uffdlab.uapi.protocol.notifications import Notification

    Subscriber = Callable[[Notification | MachineGone], None]

_Answer = TypeVar("_Answer")

DEADLINE = 10.0  # seconds; the default of a call
_GRACE = 5.0  # seconds more for an agent that is busy with another call
_PING_DEADLINE = 4.0


class Connection:
    """The machine that a lab has now.

    Parameters
    ----------
    kernel : str, path or None
    machine : str, Machine or None
        The kind of machine, or a machine that runs already.
    options : Options
        The options of a machine that is started here.

    Attributes
    ----------
    kernel : str
        The kernel's name.
    machine : Machine
    closed : bool
    """

    def __init__(
        self, kernel: str | os.PathLike[str] | None, machine: str | Machine | None, options: factory.Options
    ) -> None:
        self.closed = False
        self._offset_ns = 0
        self._unsubscribe: Callable[[], None] = lambda: None
        self._subscriber: Subscriber | None = None
        self._start: Callable[[], tuple[str, Machine]]
        self.kernel: str
        self.machine: Machine
        if machine is None or isinstance(machine, str):
            self._start = partial(factory.start, kernel, machine, options)
            self.start()
        else:
            self._start = _cannot_start
            self.kernel, self.machine = str(kernel or machine.name), machine

    def open(self, subscriber: Subscriber) -> None:
        """Call `subscriber` with the machine's notifications, on its reader thread, and compare its clock with ours."""
        self._subscriber = subscriber
        reference = weakref.ref(self)

        def pass_on(notification: Notification | MachineGone) -> None:
            # The reader thread must not keep this object alive: a machine that nobody can reach is collected.
            connection = reference()
            if connection is not None and connection._subscriber is not None:  # noqa: SLF001
                connection._subscriber(notification)  # noqa: SLF001

        self._unsubscribe = self.machine.notify_to(pass_on)
        self._offset_ns = clock.offset_ns(lambda: self.ask(ReadClock()))

    def end(self) -> None:
        """End the machine, so that :meth:`start` can start another one of the same kind.

        Raises
        ------
        UsageError
            The machine was not started here.  It keeps running.
        """
        if self._start is _cannot_start:
            self._start()
        self._end()

    def start(self) -> None:
        """Start another machine of the same kind.  Call :meth:`open` afterwards."""
        self.kernel, self.machine = self._start()

    def close(self) -> None:
        """End the machine permanently."""
        self.closed = True
        self._end()

    def _end(self) -> None:
        self._unsubscribe()
        with contextlib.suppress(MachineError):
            self.machine.close()

    # --- requests

    def ask(self, request: Method[_Answer], *, deadline: float = DEADLINE) -> _Answer:
        """Send a request to the agent or the target; see :meth:`uffdlab.machines.Machine.ask`."""
        self.must_be_open()
        more = _GRACE if isinstance(request, AgentMethod) else 0.0
        return self.machine.ask(request, deadline=deadline + more)

    def must_answer(self) -> None:
        """Raise MachineError if the machine does not answer any more."""
        self.must_be_open()
        self.machine.ask(Ping(), deadline=_PING_DEADLINE)

    def must_be_open(self) -> None:
        """Raise LabClosed if the connection was closed."""
        if self.closed:
            raise self.closed_error()

    def closed_error(self) -> LabClosed:
        """Return the error for every call on a closed lab."""
        return LabClosed(f"this lab ({self.kernel}) is closed; make a new one: uffdlab.Lab({self.kernel!r})")

    def now(self) -> int:
        """Return the guest's CLOCK_MONOTONIC in ns, computed from the host's."""
        return time.monotonic_ns() + self._offset_ns


def _cannot_start() -> tuple[str, Machine]:
    raise UsageError(
        "this lab did not start its machine, so it cannot start another one: make a new machine, and a new lab"
    )
