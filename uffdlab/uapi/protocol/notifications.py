"""The notifications: what the agent sends without a request."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from msgspec import Meta, Struct

from uffdlab.uapi.layout import MESSAGE_SIZE
from uffdlab.uapi.memory import PAGE
from uffdlab.uapi.protocol.base import Answer, Count, Nanoseconds, Number, Pid, Text
from uffdlab.uapi.protocol.target import TouchResult

_Notice = TypeVar("_Notice", bound="type[Notification]")


class Notification(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message that the agent sends without a request; its fields are the parameters, by position."""

    method: ClassVar[str]


NOTIFICATIONS: dict[str, type[Notification]] = {}


def notification(name: str) -> Any:
    """Enter a class into :data:`NOTIFICATIONS` under the name that it has on the wire."""

    def enter(entry: _Notice) -> _Notice:
        entry.method = name
        NOTIFICATIONS[name] = entry
        return entry

    return enter


class HelloFacts(Answer, frozen=True):
    """Facts about an agent and its machine; ``monotonic_ns`` is CLOCK_MONOTONIC."""

    protocol: int
    pid: Pid
    uid: Annotated[int, Meta(ge=0, lt=1 << 32)]
    release: Text
    version: Text
    machine: Text
    python: Text
    page_size: Annotated[int, Meta(ge=PAGE, le=1 << 16)]
    cpus: Annotated[int, Meta(ge=1, le=1 << 16)] | None
    monotonic_ns: Nanoseconds


@notification("hello")
class Hello(Notification, frozen=True):
    """The first message of an agent."""

    facts: HelloFacts


@notification("message")
class MessageRead(Notification, frozen=True):
    """The target has read a struct uffd_msg from a userfaultfd.

    `adopted`: the number of the userfaultfd that came with a FORK event, else 0.
    """

    number: Number
    data: Annotated[bytes, Meta(min_length=MESSAGE_SIZE, max_length=MESSAGE_SIZE)]
    time_ns: Nanoseconds
    adopted: Count


@notification("touch")
class TouchEnded(Notification, frozen=True):
    """A touch has ended."""

    number: Number
    result: TouchResult


@notification("feed-error")
class FeedFailed(Notification, frozen=True):
    """The target could not read a userfaultfd or the end of a touch; it will try again."""

    why: Text


@notification("target-lost")
class TargetEnded(Notification, frozen=True):
    """A target has ended; `kind`: that of the error raised for its requests; `status`: as waitpid(2), -1 if unknown."""

    pid: Pid
    why: Text
    kind: Text
    status: Annotated[int, Meta(ge=-1, le=0xFFFF)]
    nonce: bytes


@notification("program-output")
class ProgramOutput(Notification, frozen=True):
    """A program has written to `stream` 1 (stdout) or 2 (stderr)."""

    key: int
    stream: Literal[1, 2]
    data: bytes


@notification("program-input")
class ProgramInputWanted(Notification, frozen=True):
    """A program's stdin has taken all bytes, and can take more; sent again only after the next bytes."""

    key: int


HOST_NOTIFICATIONS = ("alive",)
"""The host sends this regularly to an agent behind ssh, to show that the connection is up.  No parameters."""
