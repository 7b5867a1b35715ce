"""Witnesses: independent ways to read a page's state.  Each declares which bits it can know.

``physical`` reads the guest's page tables from the host, without the help of the guest.  ``kernel`` gets the same raw
entries from the PTE reader of kernel-patch.  ``pagemap`` (5.13 and later) and ``scan`` (PAGEMAP_SCAN, 6.7 and later)
work on any kernel, and do not know whether a page is writable.
"""

from __future__ import annotations

from uffdlab.witnesses.base import Witness

__all__ = ["Witness"]
