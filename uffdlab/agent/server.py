"""The agent: answers the host and runs the target.  It never accesses registered memory itself.

It answers ``agent.*`` itself and passes ``target.*`` on to the target, with the host's deadline.  A target that has not
answered by then is blocked in the kernel: it is killed, and the host gets ``fault-unresolved``.  If the target has its
own port, the host asks it there, enforces the deadline itself and sends ``agent.late``.  Programs for ``agent.exec``
run beside the target.
"""

from __future__ import annotations

import os
import select
import sys
import time

from uffdlab.agent import commands, native, pidfd
from uffdlab.agent.pidfd import Process
from uffdlab.agent.programs import Programs
from uffdlab.agent.rpc import NOTIFICATION, REQUEST, Channel, PatientChannel, Refusal
from uffdlab.agent.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROTOCOL = 1
_DEFAULT_DEADLINE = 10.0  # seconds
_REAP_DEADLINE = 5.0
_DOING = dict.fromkeys("SD", "it waits in the kernel") | dict.fromkeys("Tt", "it was stopped by a signal")
_LONGEST_POLL = (1 << 31) - 1  # ms; poll(2) takes no more
_NOT_REAPED = -1  # in place of the status of a target that did not end


class _Waiting:
    def __init__(self, number: int, method: str, deadline: float) -> None:
        self.number = number  # of the host's request
        self.method = method
        self.until = time.monotonic() + deadline


class _Target:
    def __init__(self, process: Process, nonce: bytes, stream: int) -> None:
        self.process, self.nonce = process, nonce
        # Never wait for the target: it may be blocked, or wait itself until a large answer of its own is read.
        self.channel = PatientChannel(stream)
        self.waiting: dict[int, _Waiting] = {}


class Server:
    """Serves one host over a byte stream until the host closes it.

    Parameters
    ----------
    read_fd, write_fd : int
        The byte stream; they may be the same descriptor.
    target_fd : int
        The target's own byte stream, -1 if there is none.
    """

    def __init__(self, read_fd: int, write_fd: int, target_fd: int = -1) -> None:
        self._host = Channel(read_fd, write_fd)
        self._host_fds = {read_fd, write_fd}
        self._target_fd = target_fd
        self._target: _Target | None = None
        self._why_no_target = "there is no target process"
        self._programs = Programs(self._host)
        self._next = 0
        self._methods: dict[str, Callable[..., Any]] = {
            "agent.ping": lambda value=None: value,
            "agent.spawn": self._spawn,
            "agent.kill_target": self._kill_target,
            "agent.late": self._late,
            **commands.METHODS,
            **self._programs.methods,
        }

    def serve(self) -> None:
        """Send the hello, then answer until the host closes the stream."""
        self._host.notify("hello", self._hello())
        try:
            while True:
                self._serve_once()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass
        finally:
            if self._target:
                self._target.process.kill(_REAP_DEADLINE)
            self._programs.end_all()

    @staticmethod
    def _hello() -> dict[str, Any]:
        uname = os.uname()
        return {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "release": uname.release,
            "version": uname.version,
            "machine": uname.machine,
            "python": sys.version.split()[0],
            "page_size": os.sysconf("SC_PAGE_SIZE"),
            "cpus": os.cpu_count(),
            "monotonic_ns": time.monotonic_ns(),
        }

    def _serve_once(self) -> None:
        poll = select.poll()
        poll.register(self._host.fileno(), select.POLLIN)
        if self._target:
            poll.register(self._target.channel.fileno(), self._target.channel.events)
        for fd, events in self._programs.descriptors().items():
            poll.register(fd, events)
        ready = {fd for fd, _ in poll.poll(self._milliseconds_to_next_deadline())}
        if self._target and self._target.channel.fileno() in ready:
            self._target.channel.flush()
            self._from_target(self._target)
        self._programs.handle_ready(ready)
        self._programs.enforce_deadlines()
        self._enforce_deadlines()
        if self._host.fileno() in ready:
            for frame in self._host.receive():
                self._from_host(frame)

    # --- the host

    def _from_host(self, frame: list[Any]) -> None:
        kind, number, method, params = frame
        if kind != REQUEST:
            return
        try:
            if method.startswith("target."):
                self._pass_on(number, method, params)
                return
            if method == "agent.exec":
                self._programs.start(number, *params)
                return
            handler = self._methods.get(method)
            if handler is None:
                raise Refusal(
                    "unknown-method", f"the agent does not know {method}; host and agent have different versions"
                )
            result = handler(*params)
        except Refusal as refusal:
            self._host.respond(number, refusal.as_map(), None)
        except Exception as error:  # noqa: BLE001 - the host gets every error
            self._host.respond(number, _unexpected_error(error), None)
        else:
            self._host.respond(number, None, result)

    def _pass_on(self, number: int, method: str, params: list[Any]) -> None:
        """Pass a request on to the target.  Its first parameter is the deadline in seconds."""
        if self._target is None:
            raise Refusal("target-lost", f"{method}: {self._why_no_target}; lab.restart_target() starts a new one")
        deadline, *rest = params
        self._next += 1
        self._target.waiting[self._next] = _Waiting(number, method, deadline or _DEFAULT_DEADLINE)
        self._target.channel.request(self._next, method, rest)

    # --- the target

    def _spawn(self, nonce: bytes, base: int) -> dict[str, int]:
        """End the old target and start a new one; return {"pid"}."""
        self._kill_target()
        from uffdlab.agent import target

        ours, theirs = native.stream_pair()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError:
            os.close(ours)
            os.close(theirs)
            raise
        if pid == 0:
            status = 1
            try:
                for fd in (ours, *self._host_fds, *self._programs.descriptors()):
                    if fd > 2:
                        os.close(fd)
                target.serve(theirs, nonce, base, self._target_fd)
                status = 0
            except BaseException as error:  # noqa: BLE001 - a forked child must never return into the server
                os.write(2, f"uffdlab: the target ended: {error!r}\n".encode(errors="replace"))
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(theirs)
        try:
            self._target = _Target(Process(pid), nonce, ours)
        except OSError:
            os.close(ours)
            raise
        return {"pid": pid}

    def _from_target(self, child: _Target) -> None:
        try:
            for frame in child.channel.receive():
                if frame[0] == NOTIFICATION:
                    self._host.notify(frame[1], *frame[2])
                    continue
                _, number, error, result = frame
                waiting = child.waiting.pop(number, None)
                if waiting:
                    self._host.respond(waiting.number, error, result)
        except (EOFError, ConnectionResetError):
            self._target_ended(child)

    def _target_ended(self, child: _Target, kind: str = "target-lost", why: str = "") -> None:
        self._target = None
        os.close(child.channel.fileno())
        ended = child.process.wait(_REAP_DEADLINE)
        child.process.close()
        status = _NOT_REAPED if ended is None else ended
        why = why or f"the target process ended ({_describe_status(status)})"
        self._why_no_target = why
        for waiting in child.waiting.values():
            refusal = Refusal(kind, f"{waiting.method}: {why}", status=status)
            self._host.respond(waiting.number, refusal.as_map(), None)
        self._host.notify("target-lost", child.process.pid, why, kind, status, child.nonce)

    def _kill_target(self) -> None:
        if self._target:
            child = self._target
            child.process.signal(SIGKILL)
            self._target_ended(child, why="the target process was ended on request")

    def _milliseconds_to_next_deadline(self) -> int | None:
        waiting = self._target.waiting.values() if self._target else ()
        until = min(self._programs.next_deadline(), *(each.until for each in waiting), float("inf"))
        if until == float("inf"):
            return None
        return min(max(0, int((until - time.monotonic()) * 1000) + 1), _LONGEST_POLL)

    def _enforce_deadlines(self) -> None:
        child = self._target
        now = time.monotonic()
        if child and any(waiting.until <= now for waiting in child.waiting.values()):
            self._end_late(child, [waiting.method for waiting in child.waiting.values()])

    def _late(self, nonce: bytes, methods: list[str]) -> None:
        """Kill the target with this nonce, if it still runs, because it has not answered the host in time."""
        child = self._target
        if child and child.nonce == nonce:
            self._end_late(child, methods + [waiting.method for waiting in child.waiting.values()])

    def _end_late(self, child: _Target, methods: list[str]) -> None:
        doing = _DOING.get(pidfd.state(child.process.pid), "it was still running")
        child.process.signal(SIGKILL)
        late = ", ".join(methods)
        why = f"{late} did not return before its deadline: {doing}. The target was killed."
        self._target_ended(child, "fault-unresolved", why)


def _unexpected_error(error: Exception) -> dict[str, Any]:
    try:
        import traceback

        lines = "".join(traceback.format_exception(error))
    except ImportError:  # a guest that lacks a module must still say what went wrong
        lines = repr(error)
    data = {"traceback": lines[-4000:]}
    if isinstance(error, OSError) and error.errno:
        data["errno"] = str(error.errno)
    return {"kind": type(error).__name__, "message": str(error) or type(error).__name__, "data": data}


def _describe_status(status: int) -> str:
    if status == _NOT_REAPED:
        return "and could not be reaped"
    if os.WIFSIGNALED(status):
        import signal

        number = os.WTERMSIG(status)
        known = {int(each): each.name for each in signal.Signals}  # most realtime signals have no name there
        name = known.get(number, f"signal {number}")
        # The OOM killer sends SIGKILL and writes to the kernel's log, which is the lab's console in a guest.
        return f"by {name}" + (": out of memory, or killed by another process" if name == "SIGKILL" else "")
    return f"with exit status {os.waitstatus_to_exitcode(status)}"


def serve(read_fd: int, write_fd: int, target_fd: int = -1) -> None:
    """Serve one host over `read_fd` and `write_fd`, its target over `target_fd`, until the host closes the stream."""
    Server(read_fd, write_fd, target_fd).serve()
