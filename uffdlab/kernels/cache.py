"""Kernels in the cache folder: where things lie, and locks.

::

    <cache>/images/<name>-<key>/   a finished kernel: its image, config, build log and kernel.json
    <cache>/trees/<source>/        an unpacked source, with the one object folder for all its variants
    <cache>/apt/<suites>/          a private apt root
    <cache>/resolved/              which version a package name stood for when it was last looked up, and what was last
                                   found in each tree of the user's
    <cache>/modules/               the PTE reader as a module, for packaged kernels
    <cache>/logs/                  the log of each kernel's last build, failed ones too
    <cache>/locks/
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uffdlab import cachedir, settings
from uffdlab.cachedir import slug
from uffdlab.kernels.images import Images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uffdlab.kernels.progress import Progress


class Cache:
    """The cache folder.

    Parameters
    ----------
    folder : Path, optional
        Instead of ``$UFFDLAB_CACHE``, or else the user's cache folder.
    shared : Path, optional
        A shared store of kernels.  By default ``$UFFDLAB_IMAGES``, or none if a folder is given.

    Attributes
    ----------
    images : Images
        The user's own finished kernels.
    shared : Images or None
        The kernels of the shared store, which are only read.
    """

    def __init__(self, folder: Path | None = None, shared: Path | None = None) -> None:
        if folder is None:
            folder, shared = cachedir.root(), shared or settings.images_folder()
        self.folder = folder.absolute()
        self.images = Images(self.folder / "images")
        self.shared = Images(shared) if shared is not None else None

    def tree(self, source: str) -> Path:
        """Return the folder in which a source is unpacked and built."""
        return self.folder / "trees" / slug(source)

    def apt_root(self, suites: tuple[str, ...]) -> Path:
        """Return the folder of the private apt root for these suites."""
        return self.folder / "apt" / slug("+".join(suites))

    def log(self, name: str) -> Path:
        """Return the path of the log of a kernel's last build."""
        return self.folder / "logs" / f"{slug(name)}.log"

    @contextlib.contextmanager
    def locked(self, what: str, progress: Progress) -> Iterator[int]:
        """Hold the lock on `what`, and yield its file descriptor.

        The lock is flock(2). A child that inherits the descriptor shares the lock, so it is released only when every
        process that could still write has ended.

        Raises
        ------
        KernelError
            Another process held the lock for two hours.
        """
        path = self.folder / "locks" / f"{slug(what)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = False

        def tell(holder: str, waited: float) -> None:
            nonlocal waiting
            if not waiting:
                progress.stage(f"waiting for process {holder}, at work on {what}", unit="s")
                waiting = True
            progress.at(int(waited))

        with cachedir.locked_file(path, what, on_wait=tell) as descriptor:
            yield descriptor
