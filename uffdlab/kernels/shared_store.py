"""Copy kernels into a store that other users read: a folder of finished kernels that ``$UFFDLAB_IMAGES`` names."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from uffdlab import cachedir
from uffdlab.cachedir import discard
from uffdlab.errors import HostUnsupported
from uffdlab.kernels.images import Images

if TYPE_CHECKING:
    from pathlib import Path

    from uffdlab.kernels.images import Finished, Kernel

_FOLDER_MODE, _FILE_MODE = 0o755, 0o644
_LOCK = ".lock"
_INCOMING = ".incoming"  # a copy that is not complete


def share(finished: Finished, store: Path) -> Kernel:
    """Copy a kernel into a store, where every user can read it, whatever this process's umask.  Return the copy.

    A kernel that is there already is not copied again.

    Raises
    ------
    HostUnsupported
        The store cannot be written to.
    """
    try:
        _make_folders(store)
        with cachedir.locked_file(store / _LOCK, f"the store {store}"):
            images = Images(store)
            kernel = images.find(finished.kernel.name, finished.kernel.key)
            return images.prefer(kernel) if kernel else _copy(finished, images)
    except OSError as error:
        raise HostUnsupported(
            f"{finished.kernel.name} cannot be written to {store}: {error.filename or store}: {error.strerror}. "
            "Give a folder that you can write to, on a disk that is not full",
            missing="a writable store",
        ) from error


def closed_folder(store: Path) -> Path | None:
    """Return the first folder on the way to `store` that other users cannot enter, or None."""
    on_the_way = [*reversed(store.parents), store]
    return next((folder for folder in on_the_way if not folder.stat().st_mode & 0o001), None)


def _copy(finished: Finished, images: Images) -> Kernel:
    incoming = images.folder / _INCOMING
    discard(incoming)  # of a process that was killed here
    try:
        incoming.mkdir()
        incoming.chmod(_FOLDER_MODE)
        for path in finished.files():
            copy = incoming / path.relative_to(finished.folder)
            if copy.parent != incoming and not copy.parent.is_dir():
                copy.parent.mkdir()
                copy.parent.chmod(_FOLDER_MODE)
            shutil.copyfile(path, copy)
            copy.chmod(_FILE_MODE)
        return images.publish(incoming, finished)
    finally:
        discard(incoming)


def _make_folders(store: Path) -> None:
    for folder in [*reversed(store.parents), store]:
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(_FOLDER_MODE)
