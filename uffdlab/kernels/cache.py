"""Kernels in the cache folder: where things lie, locks, and kernels that are finished.

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
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uffdlab import cachedir
from uffdlab.cachedir import discard, slug

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uffdlab.kernels.progress import Progress


@dataclass(frozen=True)
class Kernel:
    """A kernel that is ready to boot.

    Attributes
    ----------
    name : str
        ``6.1-series``, ``debian/trixie``, or the path that was given.
    image : Path
        What to give to ``qemu -kernel``: an ELF vmlinux with the PVH note where possible (it boots fastest), else a
        bzImage.
    release : str
        What ``uname -r`` will say; empty if not known.
    key : str
        Hash of everything that went into it, hexadecimal.
    config : Path or None
        Its .config.
    log : Path or None
        Its build log.
    """

    name: str
    image: Path
    release: str
    key: str
    config: Path | None = None
    log: Path | None = None


class Cache:
    """The cache folder.

    Parameters
    ----------
    folder : Path, optional
        Instead of ``$UFFDLAB_CACHE``, or else the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cachedir.root() if folder is None else folder.absolute()
        self.images = self.folder / "images"

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

    def find(self, name: str, key: str) -> Kernel | None:
        """Return a finished kernel, or None if there is none or it was damaged."""
        folder = self._folder(name, key)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads((folder / "kernel.json").read_text())
            kernel = _kernel(folder, record)
            if kernel.image.stat().st_size == record.get("size", kernel.image.stat().st_size):
                return kernel
        return None

    def find_made_of(self, name: str, made_of: str) -> Kernel | None:
        """Return the newest finished kernel with this :func:`~uffdlab.kernels.cache_key.made_of`, or None."""
        for kernel in self.finished(name):
            with contextlib.suppress(OSError, ValueError):
                if json.loads((kernel.image.parent / "kernel.json").read_text()).get("made_of") == made_of:
                    return self.find(name, kernel.key)
        return None

    def finished(self, name: str) -> list[Kernel]:
        """Return all finished kernels of this name, the newest first."""
        found = []
        for folder in self.images.glob(f"{slug(name)}-*"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads((folder / "kernel.json").read_text())
                if record["name"] == name:
                    found.append((folder.stat().st_mtime, _kernel(folder, record)))
        return [kernel for _, kernel in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def publish(self, made: Path, kernel: Kernel, made_of: str = "") -> Kernel:
        """Publish the folder `made`, which has the files of `kernel`, as a finished kernel, and return it.

        `made` must be on the same file system: it is renamed. :meth:`find_made_of` finds the kernel by `made_of`. The
        caller holds a lock, so that no other process publishes the same kernel.
        """
        record = {
            "name": kernel.name,
            "key": kernel.key,
            "made_of": made_of,
            "release": kernel.release,
            "image": kernel.image.name,
            "size": kernel.image.stat().st_size,
            "config": kernel.config and kernel.config.name,
            "log": kernel.log and kernel.log.name,
        }
        (made / "kernel.json").write_text(json.dumps(record, indent=1) + "\n")
        for path in made.iterdir():
            cachedir.sync(path)
        self.images.mkdir(parents=True, exist_ok=True)
        folder = self._folder(kernel.name, kernel.key)
        discard(folder)  # another program took a file out of it, or find() had returned it
        made.rename(folder)
        cachedir.sync(self.images)
        return _kernel(folder, record)

    def remove(self, name: str) -> int:
        """Remove all finished kernels of this name and their log, and return the bytes freed."""
        freed = 0
        for kernel in self.finished(name):
            folder = kernel.image.parent
            freed += sum(path.stat().st_size for path in folder.iterdir())
            discard(folder)
        self.log(name).unlink(missing_ok=True)
        return freed

    def _folder(self, name: str, key: str) -> Path:
        return self.images / f"{slug(name)}-{key[:20]}"


def _kernel(folder: Path, record: dict[str, Any]) -> Kernel:
    def inside(name: str | None) -> Path | None:
        return folder / name if name else None

    return Kernel(
        name=record["name"],
        image=folder / record["image"],
        release=record["release"],
        key=record["key"],
        config=inside(record["config"]),
        log=inside(record["log"]),
    )
