"""Witnesses: independent ways to learn a page's state.  Each says which bits it can know.

``physical`` reads the guest's page tables from outside and needs nothing of the guest; ``kernel`` gets the same raw
entries from the PTE reader of kernel-patch; ``pagemap`` (any kernel from 5.13 on) and ``scan`` (PAGEMAP_SCAN, from 6.7
on) ask the stock kernel and never learn whether a page is writable.
"""

from __future__ import annotations

from uffdlab.witnesses.base import Witness

__all__ = ["Witness"]
