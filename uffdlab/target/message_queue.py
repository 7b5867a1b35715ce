"""MessageQueue: the messages of one userfaultfd on the host, to be waited for, iterated over or subscribed to."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from uffdlab.errors import LabClosed, NoMessage, TargetLost
from uffdlab.uapi.messages import Fault, Message

AnyMessage = Fault | Message
Interceptor = Callable[[AnyMessage], bool]

_log = logging.getLogger("uffdlab.target.userfaultfd")


class MessageQueue:
    """Messages in the order in which the kernel gave them; safe from any thread."""

    def __init__(self) -> None:
        self._waiting: deque[AnyMessage] = deque()
        self._changed = threading.Condition()
        self._interceptors: list[Interceptor] = []
        self._end: Exception | None = None

    def end(self, why: Exception) -> None:
        """End the queue: whoever waits, now or later, gets `why` after the messages that are there."""
        with self._changed:
            self._end = why
            self._changed.notify_all()

    def put(self, message: AnyMessage) -> None:
        """Take a message in: handlers first, then those who wait.  Never waits."""
        with self._changed:
            if any([interceptor(message) for interceptor in self._interceptors]):  # noqa: C419 - every one must see it
                return
            self._waiting.append(message)
            self._changed.notify_all()

    def get(self, kind: type, timeout: float, what: str) -> AnyMessage:
        """Take the oldest message of a kind, waiting for it at most `timeout` seconds; the others stay.

        Raises
        ------
        NoMessage
            If none came in time; `what` names it.
        LabClosed, TargetLost
            If none can come any more.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                for index, message in enumerate(self._waiting):
                    if isinstance(message, kind):
                        del self._waiting[index]
                        return message
                if self._end is not None:
                    raise self._end.with_traceback(None)
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
        raise NoMessage(
            f"no {what} came from the userfaultfd within {timeout:g} s. Is a touch waiting (touch.state), and is "
            "its page registered (uffd.register)?"
        )

    def each(self, timeout: float) -> Iterator[AnyMessage]:
        """Yield message after message, until none has come for `timeout` seconds."""
        with contextlib.suppress(NoMessage, LabClosed, TargetLost):
            while True:
                yield self.get(object, timeout, "message")

    def __len__(self) -> int:
        return len(self._waiting)

    def intercept(self, interceptor: Interceptor) -> Callable[[], None]:
        """Show every message to `interceptor` first, which must not wait; those it returns True for are its own.

        Messages that wait already are shown to it too.  Returns what ends that.
        """
        with self._changed:
            self._interceptors.append(interceptor)
            self._waiting = deque([message for message in self._waiting if not interceptor(message)])

        def stop() -> None:
            with self._changed, contextlib.suppress(ValueError):
                self._interceptors.remove(interceptor)

        return stop

    def subscribe(self, callback: Callable[[AnyMessage], object]) -> Callable[[], None]:
        """Call `callback` with each message as it comes, on a thread of its own, so it may ask the lab.

        What it raises is logged.  Others still get the messages.  Returns what ends the subscription.
        """
        pending: queue.SimpleQueue[AnyMessage | None] = queue.SimpleQueue()

        def deliver() -> None:
            while (message := pending.get()) is not None:
                try:
                    callback(message)
                except Exception:  # noqa: BLE001 - whatever it is, the next message is delivered
                    _log.exception("a subscriber failed at %r", message)

        def interceptor(message: AnyMessage) -> bool:
            pending.put(message)
            return False

        threading.Thread(target=deliver, name="uffdlab-subscriber", daemon=True).start()
        stop_intercepting = self.intercept(interceptor)

        def stop() -> None:
            stop_intercepting()
            pending.put(None)

        return stop
