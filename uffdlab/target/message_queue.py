"""MessageQueue: the messages of one userfaultfd on the host.  Wait for them, iterate over them, or subscribe."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from uffdlab.arguments import seconds_to_wait
from uffdlab.errors import LabClosed, NoMessage, TargetLost
from uffdlab.uapi.messages import Fault, Message

AnyMessage = Fault | Message
Interceptor = Callable[[AnyMessage], bool]

_log = logging.getLogger("uffdlab.target.userfaultfd")


class MessageQueue:
    """Messages in the order in which the kernel sent them.  All methods are thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[AnyMessage] = deque()
        self._changed = threading.Condition()
        self._interceptors: list[Interceptor] = []
        self._at_end: list[Callable[[], object]] = []
        self._end: Exception | None = None

    def end(self, why: Exception) -> None:
        """End the queue: after the messages that are in it, every wait raises `why`."""
        with self._changed:
            self._end = why
            self._changed.notify_all()
            for call in self._at_end:
                call()

    def put(self, message: AnyMessage) -> None:
        """Add a message: offer it to interceptors first, then to those who wait.  Never waits itself."""
        with self._changed:
            if any([interceptor(message) for interceptor in self._interceptors]):  # noqa: C419 - every one must see it
                return
            self._waiting.append(message)
            self._changed.notify_all()

    def get(self, kind: type, timeout: float, what: str) -> AnyMessage:
        """Remove and return the oldest message of one kind; wait for it at most `timeout` seconds.

        Raises
        ------
        NoMessage
            No message came in time; `what` is its name in the error.
        LabClosed, TargetLost
            No message can come any more.
        """
        until = time.monotonic() + seconds_to_wait(timeout)
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
        """Yield the messages, until none has come for `timeout` seconds."""
        with contextlib.suppress(NoMessage, LabClosed, TargetLost):
            while True:
                yield self.get(object, timeout, "message")

    def __len__(self) -> int:
        return len(self._waiting)

    def intercept(self, interceptor: Interceptor, at_end: Callable[[], object] = lambda: None) -> Callable[[], None]:
        """Call `interceptor` with every message first.  If it returns True, nobody else gets that message.

        It must not wait.  It is also called with the messages that are in the queue already.  `at_end` is called when
        no message can come any more.  Return a function that removes both.
        """
        with self._changed:
            self._interceptors.append(interceptor)
            self._waiting = deque([message for message in self._waiting if not interceptor(message)])
            self._at_end.append(at_end)
            if self._end is not None:
                at_end()

        def stop() -> None:
            with self._changed, contextlib.suppress(ValueError):
                self._interceptors.remove(interceptor)
                self._at_end.remove(at_end)

        return stop

    def subscribe(self, callback: Callable[[AnyMessage], object]) -> Callable[[], None]:
        """Call `callback` with each message when it arrives, on its own thread, so that it can use the lab.

        Its exceptions are logged.  Others still get the messages.  Return a function that ends the subscription.
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
        stop_intercepting = self.intercept(interceptor, lambda: pending.put(None))

        def stop() -> None:
            stop_intercepting()
            pending.put(None)

        return stop
