"""One line of `uffdlab doctor`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """How it stands with one thing."""

    OK = "ok"
    OPTIONAL = "optional"  # labs run without it
    MISSING = "missing"


@dataclass(frozen=True)
class Line:
    """What was found about one thing, and what to do if it is not ok.

    Attributes
    ----------
    name : str
        ``QEMU``, ``disk``.
    state : State
    found : str
        What was looked at and what was seen.
    todo : str
        What to do; empty if there is nothing to do.
    """

    name: str
    state: State
    found: str
    todo: str = ""
