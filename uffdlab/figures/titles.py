"""Titles of figures: the region, the kernel and the witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uffdlab.observations.snapshot import Snapshot


SNAPSHOT = "region.snapshot() returns one"  # what to do about something else


def what(snapshot: Snapshot) -> str:
    """Return the name of the region, and the number and size of the pages."""
    pages = "1 page" if len(snapshot) == 1 else f"{len(snapshot):,} pages"
    return f"{snapshot.region}: {pages} of {_size(snapshot.page_size)}"


def where(snapshot: Snapshot) -> str:
    """Return the names of the kernel and the witness. The text begins with a space or a comma."""
    kernel = f" on {snapshot.kernel}" if snapshot.kernel else ""
    return f"{kernel}, seen by {snapshot.witness}"


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size >> 10} KiB"
