"""Ask the target for a witness; an error of the target becomes a WitnessError."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from uffdlab.errors import AgentError, FaultUnresolved, TargetLost, WitnessError

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.witnesses.base import TargetMapping

_Answer = TypeVar("_Answer")


def ask_target(witness: str, region: TargetMapping, request: Callable[[], _Answer]) -> _Answer:
    """Return what `request` returns: the target's answer to a witness.

    Raises
    ------
    WitnessError
        The target has ended, the pages are not mapped, the kernel lacks the interface, or there was no answer.
    """
    try:
        return request()
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
