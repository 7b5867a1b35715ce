"""The labs of this process that are open: a notebook that ran twice may hold more of them than its variables say."""

from __future__ import annotations

import weakref
from typing import Protocol

from uffdlab.observations.html_table import html_table


class AnyLab(Protocol):
    """A lab: a :class:`uffdlab.lab.Lab` is one."""

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        ...  # pragma: no cover

    @property
    def facts(self) -> tuple[str, str, str]:
        """Where it runs, its memory, and since when, as text."""
        ...  # pragma: no cover

    def close(self) -> None:
        """End the machine."""
        ...  # pragma: no cover


_OPEN: list[weakref.ref[AnyLab]] = []  # in the order in which they were opened


class Labs(tuple[AnyLab, ...]):
    """Labs, the oldest first; a notebook shows them as a table."""

    __slots__ = ()

    def _rows(self) -> list[tuple[str, ...]]:
        return [(str(number), lab.kernel, *lab.facts) for number, lab in enumerate(self)]

    def __repr__(self) -> str:
        return "\n".join(", ".join(row) for row in self._rows()) or "no lab is open"

    def _repr_html_(self) -> str:
        heads = ("", "kernel", "machine", "memory", "open since")
        return html_table("Open labs", heads, self._rows(), "" if self else "no lab is open")


def opened(lab: AnyLab) -> None:
    """Add a lab; it is not kept alive."""
    _OPEN.append(weakref.ref(lab, _OPEN.remove))


def closed(lab: AnyLab) -> None:
    """Remove a lab."""
    _OPEN[:] = [each for each in _OPEN if each() is not lab]


def labs() -> Labs:
    """Return the labs that are open in this Python process, the oldest first; a notebook shows them as a table."""
    return Labs(lab for each in tuple(_OPEN) if (lab := each()) is not None)


def close_all() -> None:
    """Close every lab that is open in this Python process.

    For the first cell of a notebook: IPython keeps what a cell has shown (``Out``, ``_``), and with it the labs of an
    earlier run.
    """
    for lab in labs():
        lab.close()
