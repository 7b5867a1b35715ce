"""A small model of pages under userfaultfd: the expected result of every call, and the state of the pages after it.

It covers all kinds of memory that a lab can map.  :mod:`~uffdlab.fuzz.ioctl_model`,
:mod:`~uffdlab.fuzz.access_model` and :mod:`~uffdlab.fuzz.mapping_model` have the calls; this module has the copies that
wait for their source.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from uffdlab.fuzz.access_model import ACCESSES
from uffdlab.fuzz.ioctl_model import IOCTLS
from uffdlab.fuzz.mapping_model import MAPPING_CALLS
from uffdlab.fuzz.memory import WP, ExpectedMemory
from uffdlab.fuzz.page import ExpectedPage, ObservedPage
from uffdlab.fuzz.rules import ANY, SKIP, Op, Rules
from uffdlab.uapi import RegisterMode

#: The effect of each call on memory, by its name in :class:`uffdlab.fuzz.rules.Op`.
CALLS: dict[str, Callable[[ExpectedMemory, Op], str]] = {**IOCTLS, **ACCESSES, **MAPPING_CALLS}


@dataclass(frozen=True)
class PendingCopy:
    """A copy that waits for its source.

    Attributes
    ----------
    offset, size : int
        Its destination: the offset in the region, and the size of its page, in bytes.
    value : int
        The first 8 bytes.
    wp : bool
        Whether it has MODE_WP.
    modes : RegisterMode
        The modes that the page was registered for.
    same_mapping : bool
        Whether the kernel considers the mapping the same as before; all anonymous mappings are the same.
    """

    offset: int
    size: int
    value: int
    wp: bool
    modes: RegisterMode
    same_mapping: bool = True


class Model:
    """The pages of one region, and the copy that waits for its source.

    Parameters
    ----------
    rules : Rules
    pages : int
        The number of pages.

    Attributes
    ----------
    memory : ExpectedMemory
    blocked : PendingCopy or None
        The copy that waits.
    """

    def __init__(self, rules: Rules, pages: int) -> None:
        self.memory = ExpectedMemory(rules, pages)
        self.blocked: PendingCopy | None = None

    @property
    def rules(self) -> Rules:
        """The memory, userfaultfd and kernel that it models."""
        return self.memory.rules

    @property
    def pages(self) -> list[ExpectedPage]:
        """The expected state of each page."""
        return self.memory.pages

    @property
    def messages(self) -> list[str]:
        """The messages of the last call, other than page faults."""
        return self.memory.messages

    def apply(self, op: Op) -> str:
        """Return the expected result of a call, and change the expected state.

        Returns
        -------
        str
            ``ok`` or an errno's name; ``EAGAIN after 2`` pages; for a read ``= 7``; ``fault wp`` if it waits;
            ``SIGBUS``, ``SIGSEGV``; :data:`SKIP`; :data:`ANY`.
        """
        self.memory.messages = []
        if self.blocked and self._unpredictable(op):
            return SKIP
        if op.call == "block_copy":
            return self._block_copy(op)
        if op.call == "release_copy":
            return self._release_copy()
        return CALLS[op.call](self.memory, op)

    def pages_of(self, op: Op) -> range:
        """Return the pages of a call."""
        return self.memory.pages_of(op)

    def agrees(self, number: int, seen: ObservedPage) -> bool:
        """Return whether a page agrees with the model; take over the states that the kernel may choose."""
        return self.memory.agrees(number, seen)

    def child(self) -> Model:
        """Return the model of a child that was just forked: its own page tables, the same file."""
        child = Model(self.rules, 0)
        child.memory = self.memory.child()
        return child

    def replaced(self, rules: Rules, pages: int) -> Model:
        """Return the model of other memory at the same address; a copy that waits keeps waiting."""
        model = Model(rules, pages)
        if self.blocked:
            model.blocked = replace(
                self.blocked, same_mapping=self.blocked.same_mapping and not self.rules.file and not rules.file
            )
        return model

    def _block_copy(self, op: Op) -> str:
        # Only a copy that would succeed if its source were present.
        if self.blocked or not self.memory.one_mapping or (self.rules.huge and self.rules.file):
            return SKIP
        if CALLS["copy"](copy.deepcopy(self.memory), op) != "ok":
            return SKIP
        size = self.rules.page_size
        self.blocked = PendingCopy(op.page * size, size, op.value, op.mode_bit, self.pages[op.page].modes)
        return "ok"

    def _release_copy(self) -> str:
        copy, self.blocked = self.blocked, None
        if copy is None:
            return SKIP
        number, last = (each // self.rules.page_size for each in (copy.offset, copy.offset + copy.size - 1))
        if last >= len(self.pages) or not self.pages[number].modes:
            return "ENOENT"
        modes = self.pages[number].modes
        if copy.wp and not modes & WP:
            return ANY  # EINVAL or EAGAIN: some kernels check for WP first
        if not copy.same_mapping or modes != copy.modes:
            return "EAGAIN"
        return CALLS["copy"](self.memory, Op("copy", number, copy.value, copy.wp))

    def _unpredictable(self, op: Op) -> bool:
        # While a copy waits: calls that unmap or split the mapping, which some kernels treat as a change of it, and
        # changes that older kernels do not notice.
        splits = op.call in ("register", "mprotect") and len(self.memory.pages_of(op)) < len(self.pages)
        unnoticed = op.call == "replace" or (op.call == "register" and op.value)
        return op.call == "mremap" or splits or bool(unnoticed and not self.rules.checks_destination)
