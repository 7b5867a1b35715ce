"""Kernels under test: find, fetch, patch, build and cache them. kernel-patch/kernels.toml lists them.

Each name is loaded when first used, so that the catalogue alone, which names are completed from, loads in no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uffdlab.kernels.cache import Cache
    from uffdlab.kernels.catalogue import Catalogue
    from uffdlab.kernels.images import Kernel
    from uffdlab.kernels.lookup import get, pte_reader
    from uffdlab.kernels.progress import Progress
    from uffdlab.kernels.supply import Listed, Supply

__all__ = ["Cache", "Catalogue", "Kernel", "Listed", "Progress", "Supply", "get", "pte_reader"]

_MODULES = {
    "Cache": "cache",
    "Catalogue": "catalogue",
    "Kernel": "images",
    "Listed": "supply",
    "Progress": "progress",
    "Supply": "supply",
    "get": "lookup",
    "pte_reader": "lookup",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
