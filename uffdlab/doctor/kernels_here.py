"""The kernels of this user, and those of the shared store."""

from __future__ import annotations

import os

from uffdlab import settings
from uffdlab.doctor.line import Line, State
from uffdlab.kernels import Supply
from uffdlab.kernels.cache import Cache
from uffdlab.kernels.images import RECORD


def shared(name: str) -> Line:
    """Check whether the shared store can be read, with each of its kernels."""
    store = settings.images_folder()
    if store is None:
        return Line(name, State.OK, "none is set (UFFDLAB_IMAGES)")
    images = Cache().shared
    assert images is not None
    try:
        folders = [each for each in store.iterdir() if each.is_dir() and not each.name.startswith(".")]
    except OSError as error:
        return Line(
            name,
            State.MISSING,
            f"{store} cannot be read: {error.strerror}",
            "ask whoever runs `uffdlab kernel share`, or unset UFFDLAB_IMAGES",
        )
    closed = [each.name for each in folders if not os.access(each / RECORD, os.R_OK)]
    if closed:
        return Line(
            name,
            State.MISSING,
            f"{store}: this user cannot read {', '.join(sorted(closed))}",
            f"whoever keeps the store: chmod -R a+rX {store}",
        )
    found = images.all()
    unreadable = [each.kernel.name for each in found if not os.access(each.kernel.image, os.R_OK)]
    if unreadable:
        todo = f"whoever keeps the store: chmod -R a+rX {store}"
        return Line(name, State.MISSING, f"{store}: the images of {', '.join(unreadable)} cannot be read", todo)
    names = sorted({each.kernel.name for each in found})
    return Line(name, State.OK, f"{store}: {', '.join(names) or 'no kernels'}")


def kernels(name: str) -> Line:
    """List the kernels that a lab can boot at once."""
    here = [row.name for row in Supply().available() if row.kernel]
    if here:
        return Line(name, State.OK, ", ".join(here))
    return Line(
        name,
        State.OPTIONAL,
        "none yet; the first lab of a kernel fetches or builds it",
        "uffdlab kernel build debian/trixie; without a network: uffdlab kernel import FILE",
    )
