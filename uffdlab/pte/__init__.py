"""Decode raw entries into states: page-table entries of several architectures, and what the kernel reports of them.

:data:`FORMATS` lists the formats.

Every decoder takes whole arrays and returns two: *states* (which bits are set) and *known* (which bits the entry
determines).  A state that is not known is never shown as false.

What "known" means for an entry that maps nothing
-------------------------------------------------
A state is a property of the page-table entry (of the page behind it for EXCLUSIVE and FILE).  An empty entry has none
of them, and that is known: an absent page *is* not writable.  A swap entry keeps soft-dirty and uffd-wp.  It is known
not to be writable, and its dirty and accessed are unknown.  pagemap never reports writable, dirty, accessed or huge,
not even for an absent page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.pte import x86
from uffdlab.pte.arm64 import decode_arm64, explain_arm64, frames_arm64
from uffdlab.pte.formats import FORMATS
from uffdlab.pte.pagemap import decode_pagemap, explain_pagemap, frames_pagemap
from uffdlab.pte.scan import Category, decode_scan, explain_scan
from uffdlab.pte.states import ALL, LEVEL_NAMES, MAPPING, Bit, State, describe, state_name
from uffdlab.pte.x86 import decode_x86, explain_x86, frames_x86

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ALL",
    "FORMATS",
    "LEVEL_NAMES",
    "MAPPING",
    "Bit",
    "Category",
    "State",
    "decode_arm64",
    "decode_pagemap",
    "decode_scan",
    "decode_x86",
    "describe",
    "explain",
    "explain_arm64",
    "explain_pagemap",
    "explain_scan",
    "explain_x86",
    "first_the_important",
    "frames_arm64",
    "frames_pagemap",
    "frames_x86",
    "level_text",
    "state_name",
    "x86",
]


def explain(form: str, entry: int, level: int = 1) -> list[Bit]:
    """Return the fields of a raw entry, highest bit first; `form` is a key of :data:`FORMATS`."""
    return FORMATS[form].explain(entry, level)


_IMPORTANT = ("uffd-wp", "writable")


def first_the_important(bits: Iterable[Bit]) -> list[Bit]:
    """Return the fields of an entry with uffd-wp and writable at the top, the others as they are."""
    return sorted(bits, key=lambda bit: _IMPORTANT.index(bit.name) if bit.name in _IMPORTANT else len(_IMPORTANT))


def level_text(entry: int, level: int, page_size: int) -> str:
    """Return where an entry is, to put behind its value: " in a PTE"; empty if its level is not known.

    An empty entry above the level of its page says that the table below is missing.

    Parameters
    ----------
    entry : int
        The raw entry.
    level : int
        1 = PTE, 2 = PMD, 3 = PUD; 0 if it is not known.
    page_size : int
        Bytes.
    """
    if not level:
        return ""
    below = ""
    if entry == 0 and page_size < 4096 << 9 * (level - 1):
        does = "hold" if page_size == 4096 << 9 * (level - 2) else "lead to"
        below = f": the {LEVEL_NAMES[level - 1]} table that would {does} this page's entry is not there yet"
    return f" in a {LEVEL_NAMES[level]}{below}"
