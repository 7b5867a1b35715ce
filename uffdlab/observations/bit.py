"""Bit: one property of the pages of a snapshot, as an array of truth values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, overload

import numpy as np

from uffdlab import pte
from uffdlab.errors import UsageError
from uffdlab.observations.page_text import page_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uffdlab.pte import State


class HasStates(Protocol):
    """Pages with states: a :class:`uffdlab.observations.snapshot.Snapshot` has them."""

    witness: str
    first: int

    def has(self, state: State) -> NDArray[np.bool_]:
        """Return for each page whether the bit is set and known."""
        ...  # pragma: no cover

    def knows(self, state: State) -> NDArray[np.bool_]:
        """Return for each page whether the bit is known."""
        ...  # pragma: no cover


class Bit:
    """An attribute of a snapshot: for each page whether this bit is set; bool, shape (n,).

    Raises
    ------
    UsageError
        The witness does not know the bit of every page: an array of truth values has no third one.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.__doc__ = f"For each page whether it is {pte.state_name(state)}; UsageError if that is not known of all."

    @overload
    def __get__(self, snapshot: None, owner: object) -> Self: ...
    @overload
    def __get__(self, snapshot: HasStates, owner: object) -> NDArray[np.bool_]: ...
    def __get__(self, snapshot: HasStates | None, owner: object) -> Self | NDArray[np.bool_]:
        if snapshot is None:
            return self
        unknown = np.flatnonzero(~snapshot.knows(self._state))
        if unknown.size:
            name = self._state.name
            raise UsageError(
                f"{snapshot.witness} does not know {pte.state_name(self._state)} of page"
                f" {page_ranges([snapshot.first + int(index) for index in unknown])}; ask another witness, or "
                f"snapshot.has(State.{name}) and snapshot.knows(State.{name})"
            )
        return snapshot.has(self._state)
