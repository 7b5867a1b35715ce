"""The host's end of the connection: MessagePack-RPC with an agent that is not trusted.

:mod:`uffdlab.uapi.protocol` lists all methods and notifications.  Any other frame, or one that is too large, ends the
connection with a ProtocolError.  An answer that does not have its method's type is a ProtocolError for the caller.
Nothing is unpickled.

If there is a direct line to the target, its calls use that.  The way through the agent costs an emulated CPU two
context switches, a millisecond.  The client then enforces the deadline itself, and notifies the agent of a late target.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgpack
from msgspec import Struct
from msgspec.structs import astuple

from uffdlab import errors
from uffdlab.arguments import seconds_to_wait
from uffdlab.machines.rpc import decoding
from uffdlab.machines.rpc.framing import MAX_FRAME, Full, Line, Malformed, TargetLine
from uffdlab.uapi.protocol.agent import EndLateTarget, SpawnTarget
from uffdlab.uapi.protocol.base import TargetMethod
from uffdlab.uapi.protocol.notifications import Hello, Notification, TargetEnded

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from uffdlab.uapi.protocol.base import Method
    from uffdlab.uapi.protocol.notifications import HelloFacts

    Subscriber: TypeAlias = Callable[["Notification | MachineGone"], None]
    MoreTime: TypeAlias = Callable[[float], float]

_Answer = TypeVar("_Answer")

_REQUEST, _RESPONSE, _NOTIFICATION = 0, 1, 2
_OF_TARGET = "target."
_GRACE = 5.0  # seconds more for the agent to report that a target's deadline has passed
_LEAST_LEFT = 0.1  # seconds; less is no reason to wait again
_LATE_ANSWER = 5.0  # seconds for the agent to end a target, if the caller gave fewer
_MARKER_DEADLINE = 2.0  # seconds to send a target its marker

_log = logging.getLogger("uffdlab.machines")


class MachineGone(Struct, frozen=True):
    """The last notification of subscribers: the machine has ended, with the error that every call raises."""

    error: errors.UffdlabError


def _plain(message: str, _kind: str, _data: dict[str, Any]) -> errors.UffdlabError:
    return errors.UsageError(message)


def _closed(message: str, _kind: str, _data: dict[str, Any]) -> errors.UffdlabError:
    return errors.LabClosed(message)


def _target_lost(message: str, kind: str, data: dict[str, Any]) -> errors.UffdlabError:
    return errors.TargetLost(message, kind=kind, data=data)


def _fault_unresolved(message: str, kind: str, data: dict[str, Any]) -> errors.UffdlabError:
    return errors.FaultUnresolved(message, address=_address(data), kind=kind, data=data)


def _program(message: str, kind: str, data: dict[str, Any]) -> errors.UffdlabError:
    return errors.ProgramError(message, kind=kind, data=data)


# The exceptions for the agent's kinds of error.  Any other kind is an AgentError.
ERRORS: dict[str, Callable[[str, str, dict[str, Any]], errors.UffdlabError]] = {
    "usage": _plain,
    "closed": _closed,
    "target-lost": _target_lost,
    "fault-unresolved": _fault_unresolved,
    **dict.fromkeys(("no-program", "not-executable", "program-late", "program-output", "program-killed"), _program),
}


def _error(kind: str, message: str, data: dict[str, Any]) -> errors.UffdlabError:
    make = ERRORS.get(kind)
    return make(message, kind, data) if make else errors.AgentError(message, kind=kind, data=data)


def _address(data: dict[str, Any]) -> int:
    found = data.get("address", 0)
    return found if isinstance(found, int) else 0


class _TargetRequest(Struct, frozen=True):
    # A request on the target's own line.
    method: str
    marker: bytes


class Client:
    """Calls to one agent, from any number of threads, answered by one reader thread.

    Parameters
    ----------
    stream : socket
        The byte stream; the client closes it.
    make_lost_error : callable
        Called with a reason when the stream has ended; returns the error for all callers.
    make_late_error : callable
        Called with a message when a deadline has passed; returns the error for the caller.
    make_malformed_error : callable
        Called with a message when a frame is malformed; returns the error for all callers.
    target : socket, optional
        The byte stream directly to the target; the client closes it too.
    """

    def __init__(
        self,
        stream: socket.socket,
        *,
        make_lost_error: Callable[[str], errors.UffdlabError],
        make_late_error: Callable[[str], errors.UffdlabError],
        make_malformed_error: Callable[[str], errors.UffdlabError],
        target: socket.socket | None = None,
    ) -> None:
        self._line = Line(stream)
        self._target = None if target is None else TargetLine(target)
        self._make_lost_error = make_lost_error
        self._make_late_error = make_late_error
        self._make_malformed_error = make_malformed_error
        # A thread that holds it may collect the machine, whose end takes it again.
        self._lock = threading.RLock()
        self._next = 0
        self._pending: dict[int, Future[Any]] = {}
        self._target_requests: dict[int, _TargetRequest] = {}  # the pending requests on the target's own line
        self._abandoned: set[int] = set()  # sent, no longer waited for, not answered yet
        self._failure: errors.UffdlabError | None = None
        self._subscribers: list[Subscriber] = []
        self._hello: Future[HelloFacts | None] = Future()
        self._reader = threading.Thread(target=self._read, name="uffdlab-agent", daemon=True)
        self._reader.start()

    # --- for callers

    def hello(self, deadline: float, more: MoreTime | None = None) -> HelloFacts | None:
        """Return the facts of the agent's hello, or None after :meth:`greeted`; wait at most `deadline` seconds.

        `more` is that of :meth:`ask`.

        Raises
        ------
        MachineError
            The hello did not come in time, the first frame was something else, or the stream ended.
        """
        silent = "the guest did not start: its agent sent nothing"
        facts: HelloFacts | None = self._wait(self._hello, deadline, silent, more)
        return facts

    def greeted(self) -> None:
        """Expect no hello: a restored agent sent it before its state was saved."""
        with suppress(InvalidStateError):  # the stream has ended; every call raises that error
            self._hello.set_result(None)

    def ask(self, request: Method[_Answer], deadline: float, more: MoreTime | None = None) -> _Answer:
        """Send a request to the agent or the target, and return the answer.

        Parameters
        ----------
        request : Method
        deadline : float
            In seconds.  A target that has not answered by then is killed.
        more : callable, optional
            Called with the seconds waited when the deadline of a request to the agent has passed.  Returns for how many
            more seconds to wait.

        Raises
        ------
        AgentError
            The request was refused; depends on the kind of error.
        ProtocolError
            The answer does not have the method's type.  The message names the field.
        MachineError
            There was no answer in time, or the machine has ended.
        UsageError
            The parameters cannot be sent, or a subscriber called this, which would wait for itself.
        """
        deadline = seconds_to_wait(deadline)
        if isinstance(request, TargetMethod):
            raw = self.call(request.method, (deadline, *astuple(request)), deadline + _GRACE)
        else:
            raw = self.call(request.method, astuple(request), deadline, more)
        try:
            return decoding.answer(request, raw)
        except Malformed as error:
            raise self._make_malformed_error(f"{error}: the agent is of another version, or broken") from None

    def call(self, method: str, params: tuple[Any, ...], deadline: float, more: MoreTime | None = None) -> Any:
        """Send a request and return its answer, not validated.  Raises as :meth:`ask` does."""
        if threading.current_thread() is self._reader:
            raise errors.UsageError(f"{method} was called by a subscriber of notifications, which must not wait")
        line = self._target
        if line is not None and method.startswith(_OF_TARGET):
            marker = line.marker
            if line.marker_returned and marker:
                return self._ask_target(line, marker, method, params, deadline)
        answer = self._ask(method, params, deadline, more=more)
        if line is not None and method == SpawnTarget.method:
            self._send_marker(line, params[0])
        return answer

    def _ask(
        self,
        method: str,
        params: tuple[Any, ...],
        deadline: float,
        late: str = "",
        more: MoreTime | None = None,
    ) -> Any:
        until = time.monotonic() + deadline
        number, future = self._expect_answer()
        try:
            self._send([_REQUEST, number, method, params], until, method)
            return self._wait(future, until - time.monotonic(), late or f"{method}: no answer", more)
        finally:
            self._forget(number)

    def _ask_target(
        self, line: TargetLine, marker: bytes, method: str, params: tuple[Any, ...], deadline: float
    ) -> Any:
        # As the agent does: take the deadline from the parameters, and end a target that misses it.
        seconds, *rest = params
        until = time.monotonic() + seconds
        number, future = self._expect_answer(_TargetRequest(method, marker))
        try:
            if line.marker != marker:  # the target has ended meanwhile: the agent answers
                return self._ask(method, params, deadline)
            data = _packed([_REQUEST, number, method, rest], method)
            try:
                line.send(data, until)
                return future.result(max(0.0, until - time.monotonic()))
            except (Full, FutureTimeoutError):
                with self._lock:
                    late = [asked.method for asked in self._target_requests.values() if asked.marker == marker]
                what = f"{method}: no answer within {seconds:.1f} s, and none of the agent, which was to end it,"
                self._ask(EndLateTarget.method, (marker, late or [method]), max(_LATE_ANSWER, deadline - seconds), what)
                return self._wait(future, 0.0, f"{method}: no answer")
            except OSError as error:
                self.fail(self._make_lost_error(f"{method} could not be sent: {error.strerror}"))
                raise self._failed() from None
        finally:
            self._forget(number)

    def _send_marker(self, line: TargetLine, marker: bytes) -> None:
        # A new target waits for its marker.  Until it has sent that back, calls go through the agent.
        line.expect(marker)
        try:
            line.send(marker, time.monotonic() + _MARKER_DEADLINE)
        except (Full, OSError):
            line.drop(marker)

    def _expect_answer(self, asked: _TargetRequest | None = None) -> tuple[int, Future[Any]]:
        future: Future[Any] = Future()
        with self._lock:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            number = self._next
            self._next += 1
            self._pending[number] = future
            if asked is not None:
                self._target_requests[number] = asked
        return number, future

    def _forget(self, number: int) -> None:
        with self._lock:
            self._target_requests.pop(number, None)
            if self._pending.pop(number, None) is not None:
                self._abandoned.add(number)

    def notify(self, method: str, deadline: float, *params: Any) -> None:
        """Send a notification to the agent, within at most `deadline` seconds."""
        self._send([_NOTIFICATION, method, params], time.monotonic() + deadline, method)

    def check(self) -> None:
        """Raise the error that every call gets, if the connection has ended."""
        with self._lock:
            if self._failure is not None:
                raise self._failure.with_traceback(None)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` with each notification; return a function that unsubscribes it.

        It runs on the reader thread and must not block.  Its exceptions are logged.  The last notification is
        :class:`MachineGone`, unless the machine was closed.
        """
        with self._lock:
            self._subscribers.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                if callback in self._subscribers:
                    self._subscribers.remove(callback)

        return unsubscribe

    def fail(self, failure: errors.UffdlabError) -> None:
        """End the connection: all pending and later calls raise `failure`, or the first failure if there was one."""
        with self._lock:
            first = self._failure is None
            if self._failure is None:
                self._failure = failure
            failure = self._failure
            waiting = [*self._pending.values(), self._hello]
            self._pending.clear()
            self._target_requests.clear()
        for future in waiting:
            with suppress(InvalidStateError):
                future.set_exception(failure)
        for line in self._lines():
            line.shutdown()
        # Subscribers are notified of any end except a close by the caller.
        if first and not isinstance(failure, errors.LabClosed):
            self._notify(MachineGone(failure))

    def close(self, failure: errors.UffdlabError) -> None:
        """Fail, and wait for the reader thread to end."""
        self.fail(failure)
        if threading.current_thread() is not self._reader:
            self._reader.join(5.0)
        self.disown()

    def disown(self) -> None:
        """Close the streams in a forked child; the parent still uses them."""
        for line in self._lines():
            line.close()

    # --- implementation

    def _wait(self, future: Future[Any], seconds: float, what: str, more: MoreTime | None = None) -> Any:
        started, left = time.monotonic(), seconds
        while True:
            try:
                return future.result(max(0.0, left))
            except FutureTimeoutError:
                if future.done():  # the answer is itself a TimeoutError, or has just arrived
                    return future.result()
                waited = time.monotonic() - started
                left = more(waited) if more is not None else 0.0
                if left < _LEAST_LEFT:
                    raise self._make_late_error(f"{what} within {max(waited, seconds):.1f} s") from None

    def _lines(self) -> list[Line]:
        # The target's line first: its frames are read before the notification of its end.
        return [self._line] if self._target is None else [self._target, self._line]

    def _send(self, frame: list[Any], until: float, method: str) -> None:
        data = _packed(frame, method)
        try:
            self._line.send(data, until)
        except Full as full:
            failure = self._make_late_error(f"{method}: the machine takes no request")
            if full.begun:
                self.fail(failure)
            raise failure from None
        except OSError as error:
            self.fail(self._make_lost_error(f"{method} could not be sent: {error.strerror}"))
            raise self._failed() from None

    def _failed(self) -> errors.UffdlabError:
        with self._lock:
            assert self._failure is not None
            return self._failure.with_traceback(None)

    def _read(self) -> None:
        poll = select.poll()
        lines = self._lines()
        for line in lines:
            poll.register(line, select.POLLIN)
        try:
            while True:
                poll.poll()
                for line in lines:
                    self._read_frames(line)
        except EOFError:
            reason = "the agent closed its stream"
        except OSError as error:
            reason = f"the stream from the agent broke: {error.strerror}"
        except Exception as error:  # noqa: BLE001 - any exception here comes from a malformed frame
            reason = str(error) or type(error).__name__
            self.fail(self._make_malformed_error(f"the agent sent a malformed frame: {reason}"))
            return
        with self._lock:
            failed = self._failure is not None
        if not failed:
            self.fail(self._make_lost_error(reason))

    def _read_frames(self, line: Line) -> None:
        for frame in line.receive():
            self._dispatch(frame)

    def _dispatch(self, frame: Any) -> None:
        match frame:
            case [int(kind), int(number), error, result] if kind == _RESPONSE:
                self._answer(number, error, result)
            case [int(kind), str(method), list(params)] if kind == _NOTIFICATION:
                self._on_notification(decoding.notification(method, params))
            case _:
                raise Malformed(f"{str(frame)[:200]} is neither a response nor a notification")

    def _on_notification(self, notification: Notification) -> None:
        greeted = self._hello.done()
        if isinstance(notification, Hello) == greeted:
            raise Malformed(f"{notification.method} came {'once more' if greeted else 'before the hello'}")
        if isinstance(notification, Hello):
            self._hello.set_result(notification.facts)
            return
        if isinstance(notification, TargetEnded):
            self._fail_target_requests(notification)
        self._notify(notification)

    def _answer(self, number: int, error: Any, result: Any) -> None:
        with self._lock:
            future = self._pending.pop(number, None)
            self._target_requests.pop(number, None)
            if future is None:
                if number not in self._abandoned:
                    raise Malformed(f"response {number} answers nothing that was asked")
                self._abandoned.discard(number)
                return
        if error is None:
            future.set_result(result)
            return
        try:
            refused = decoding.error_answer(error)
        except Malformed:
            with self._lock:
                self._pending[number] = future  # so that it fails with the others
            raise
        future.set_exception(_error(refused.kind, refused.message, dict(refused.data)))

    def _fail_target_requests(self, end: TargetEnded) -> None:
        # The agent sends this for every target.  Requests on the target's own line have no other answer.
        if self._target is not None:
            self._target.drop(end.nonce)
        with self._lock:
            numbers = [number for number, asked in self._target_requests.items() if asked.marker == end.nonce]
            lost = [(self._target_requests.pop(number), self._pending.pop(number)) for number in numbers]
        for asked, future in lost:
            kind = end.kind if end.kind in ERRORS else "target-lost"
            future.set_exception(_error(kind, f"{asked.method}: {end.why}", {"status": end.status}))

    def _notify(self, notification: Notification | MachineGone) -> None:
        with self._lock:
            subscribers = list(self._subscribers)
        for callback in subscribers:
            try:
                callback(notification)
            except Exception:  # noqa: BLE001 - a subscriber's error must not end the reader
                _log.exception("a subscriber failed on %s", type(notification).__name__)


def _packed(frame: list[Any], method: str) -> bytes:
    try:
        data: bytes = msgpack.packb(frame, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise errors.UsageError(f"{method}: the parameters do not go over the wire: {error}") from error
    if len(data) > MAX_FRAME:
        raise errors.UsageError(f"{method}: {len(data)} bytes of parameters; at most {MAX_FRAME} go over the wire")
    return data
