"""What the agent answered to a witness: believed only after looking, for it comes from the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from uffdlab.errors import AgentError, FaultUnresolved, TargetLost, WitnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uffdlab.witnesses.base import Mapped


def ask(witness: str, region: Mapped, question: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Put a question to the agent; what it refuses becomes the witness's error.

    Raises
    ------
    WitnessError
        The target has ended, the pages are not mapped, the kernel lacks what it takes, or there was no answer.
    """
    try:
        return question()
    except TargetLost as error:
        raise WitnessError(
            f"{witness} of {region.name}: the target has ended, and its page tables with it; "
            "lab.restart_target() starts a new one",
            witness=witness,
        ) from error
    except FaultUnresolved:
        raise
    except AgentError as error:
        raise WitnessError(f"{witness} of {region.name}: {error}", witness=witness) from error


def blob(witness: str, region: Mapped, reply: Mapping[str, Any], name: str) -> bytes:
    """Take the bytes called `name` out of an answer."""
    found = field(witness, region, reply, name)
    if not isinstance(found, bytes | bytearray | memoryview):
        _unusable(witness, region, name)
    return bytes(found)


def whole_number(witness: str, region: Mapped, reply: Mapping[str, Any], name: str) -> int:
    """Take the number (or truth value) called `name` out of an answer."""
    found = field(witness, region, reply, name)
    if not isinstance(found, int):
        _unusable(witness, region, name)
    return found


def field(witness: str, region: Mapped, reply: Mapping[str, Any], name: str) -> Any:
    """Take what is called `name` out of an answer."""
    try:
        return reply[name]
    except (KeyError, TypeError):
        _unusable(witness, region, name)


def _unusable(witness: str, region: Mapped, name: str) -> NoReturn:
    raise WitnessError(
        f"{witness} of {region.name}: the agent's answer has no usable {name!r}; is it of another version?",
        witness=witness,
    )
