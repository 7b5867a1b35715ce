"""The names of all kernels.  A shell that completes one waits for this module, so it imports little."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uffdlab.kernels.cache import Cache
    from uffdlab.kernels.catalogue import Catalogue


def names(catalogue: Catalogue, cache: Cache) -> dict[str, str]:
    """Return the name and the description of every kernel: of the catalogue, then those imported or shared."""
    elsewhere = cache.images.names(imported=True)
    if cache.shared is not None:
        elsewhere |= cache.shared.names()
    found = {entry.name: entry.about for entry in catalogue}
    return found | dict.fromkeys(sorted(elsewhere - found.keys()), "not in this catalogue")
