"""Witnesses: independent ways to learn a page's state.  Each says which bits it can know.

``physical`` reads the guest's page tables from outside and needs nothing of the guest; ``kernel`` gets the same raw
entries from the PTE reader of kernel-patch; ``pagemap`` (any kernel from 5.13 on) and ``scan`` (PAGEMAP_SCAN, from 6.7
on) ask the stock kernel and never learn whether a page is writable.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from uffdlab.witnesses.base import Mapped, Witness

if TYPE_CHECKING:
    from uffdlab.witnesses.kernel import KernelWitness
    from uffdlab.witnesses.pagemap import PagemapWitness
    from uffdlab.witnesses.physical import PhysicalWitness
    from uffdlab.witnesses.scan import ScanWitness

__all__ = ["NAMES", "KernelWitness", "Mapped", "PagemapWitness", "PhysicalWitness", "ScanWitness", "Witness"]

NAMES = ("physical", "kernel", "pagemap", "scan")
"""Every witness, the best one first."""


_WHERE = {
    "KernelWitness": "kernel",
    "PagemapWitness": "pagemap",
    "PhysicalWitness": "physical",
    "ScanWitness": "scan",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used, with numpy: a lab that looks at no page has not waited for that.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
