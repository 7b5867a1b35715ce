"""Kernels under test: find, fetch, patch, build and cache them. kernel-patch/kernels.toml lists them."""

from uffdlab.kernels.cache import Cache
from uffdlab.kernels.catalogue import Catalogue
from uffdlab.kernels.images import Kernel
from uffdlab.kernels.lookup import get, pte_reader
from uffdlab.kernels.progress import Progress
from uffdlab.kernels.supply import Listed, Supply

__all__ = ["Cache", "Catalogue", "Kernel", "Listed", "Progress", "Supply", "get", "pte_reader"]
