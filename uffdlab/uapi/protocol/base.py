"""The types of the description of the wire: values, answers and methods."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, TypeAlias, TypeVar, get_args

from msgspec import Meta, Struct

from uffdlab.uapi.memory import PAGE

_Answer = TypeVar("_Answer")
_Method = TypeVar("_Method", bound="type[Method[Any]]")

VERSION = 1

INT64_MAX = (1 << 63) - 1
USER_END = 1 << 57  # addresses of a process: 56 bits on x86-64 with five levels of page tables, 52 on arm64

Uint64: TypeAlias = Annotated[int, Meta(ge=0)]  # of 64 bits, see Answer
Count: TypeAlias = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=INT64_MAX)]
Nanoseconds: TypeAlias = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Errno: TypeAlias = Annotated[int, Meta(ge=0, le=4095)]  # MAX_ERRNO of linux/err.h
Pid: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
Place: TypeAlias = Annotated[int, Meta(ge=PAGE, lt=USER_END, multiple_of=PAGE)]  # where a mapping starts
Text: TypeAlias = Annotated[str, Meta(max_length=1 << 16)]


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """A map from the guest with exactly these fields."""

    def __post_init__(self) -> None:
        # MessagePack has no larger integers, and the bounds of msgspec end at 63 bits.
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
                raise ValueError(f"`{name}` is not a 64-bit number")


class Timed(Answer, frozen=True):
    """When something started and ended: ``started_ns`` and ``ended_ns``, CLOCK_MONOTONIC of the guest in ns."""

    started_ns: Nanoseconds
    ended_ns: Nanoseconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ended_ns < self.started_ns:
            raise ValueError("`ended_ns` lies before `started_ns`")


class Method(Struct, Generic[_Answer], frozen=True):
    """A request; its fields are the parameters, by position on the wire."""

    method: ClassVar[str]

    @classmethod
    def answer(cls) -> Any:
        """Return the type of the answer."""
        return get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]

    def check(self, answer: _Answer) -> None:
        """Raise ValueError if `answer` is well-formed but cannot be the answer to this request."""


class AgentMethod(Method[_Answer], Generic[_Answer], frozen=True):
    """A method of the agent."""


class TargetMethod(Method[_Answer], Generic[_Answer], frozen=True):
    """A method of the target; on the way to the agent the deadline in seconds precedes its parameters."""


METHODS: dict[str, type[Method[Any]]] = {}


def method(name: str) -> Any:
    """Enter a class into :data:`METHODS` under the name that it has on the wire."""

    def enter(entry: _Method) -> _Method:
        entry.method = name
        METHODS[name] = entry
        return entry

    return enter


def check_length(name: str, data: bytes, due: int) -> None:
    """Raise ValueError if the field `name` does not have `due` bytes."""
    if len(data) != due:
        raise ValueError(f"`{name}` has {len(data)} bytes, expected {due}")
