"""Finished kernels in a folder: that of the user's cache, or a store that many users share and only read.

Each kernel has a folder ``<name>-<key>`` with its image, its config, the log of its build, and ``kernel.json``, which
says what it was made from.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from uffdlab import cachedir
from uffdlab.cachedir import discard, slug
from uffdlab.errors import HostUnsupported

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from uffdlab.kernels.apt import Resolved

RECORD = "kernel.json"


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


@dataclass(frozen=True)
class Finished:
    """A kernel in a folder of finished kernels.

    Attributes
    ----------
    kernel : Kernel
    made_of : str
        The :func:`~uffdlab.kernels.cache_key.made_of` of its inputs, or empty if not known.
    version : Resolved or None
        The packages or the tree that it was made from, or None if not known.
    imported : bool
        Whether it was imported from a file, not made here.
    made_at : int
        When it was published, in ns.
    size : int or None
        Of its image when it was published, in bytes; None if not known.
    """

    kernel: Kernel
    made_of: str = ""
    version: Resolved | None = None
    imported: bool = False
    made_at: int = 0
    size: int | None = None

    @property
    def folder(self) -> Path:
        """The folder of the kernel."""
        return self.kernel.image.parent

    @property
    def is_whole(self) -> bool:
        """Whether its image is there, with the size that it had."""
        with contextlib.suppress(OSError):
            return self.kernel.image.stat().st_size == self.size or self.size is None
        return False

    def files(self) -> list[Path]:
        """Return the files of the kernel, without its record, sorted by their paths.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        found = []
        for path in sorted(self.folder.iterdir()):
            inside = sorted(path.iterdir()) if path.is_dir() else [path]
            found += [each for each in inside if each.is_file() and each.name != RECORD]
        return found


class Images:
    """The finished kernels in a folder, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def require_readable(self) -> Images:
        """Return this.

        Raises
        ------
        HostUnsupported
            The folder does not exist or cannot be read.
        """
        try:
            next(self.folder.iterdir(), None)
        except OSError as error:
            raise HostUnsupported(
                f"the shared kernels in {self.folder} cannot be read: {error.strerror}. Ask whoever runs "
                "`uffdlab kernel share`, or unset UFFDLAB_IMAGES to have kernels of your own",
                missing="shared kernels",
            ) from error
        return self

    def find(self, name: str, key: str) -> Kernel | None:
        """Return a finished kernel, or None if there is none or it was damaged."""
        found = _read(self.path(name, key))
        return found.kernel if found and found.is_whole else None

    def finished(self, name: str) -> list[Finished]:
        """Return the finished kernels of this name, also damaged ones, the newest first."""
        found = self._read_all(f"{slug(name)}-*")
        return _newest_first(each for each in found if each.kernel.name == name)

    def usable(self, name: str) -> list[Finished]:
        """Return the finished kernels of this name that are not damaged, the newest first."""
        return [each for each in self.finished(name) if each.is_whole]

    def all(self) -> list[Finished]:
        """Return all finished kernels that are not damaged, the newest first."""
        return _newest_first(each for each in self._read_all("[!.]*") if each.is_whole)

    def names(self, *, imported: bool = False) -> set[str]:
        """Return the names of all finished kernels, also damaged ones; with `imported`, only of those."""
        found = set()
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"[!.]*/{RECORD}"):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    record = json.loads(path.read_text())
                    if record.get("imported", False) or not imported:
                        found.add(str(record["name"]))
        return found

    def publish(self, made: Path, finished: Finished) -> Kernel:
        """Publish the folder `made`, which has the files of a kernel, as a finished kernel, and return it.

        `made` must be on the same file system: it is renamed.  The caller holds a lock, so that no other process
        publishes the same kernel.
        """
        kernel = finished.kernel
        record = {
            "name": kernel.name,
            "key": kernel.key,
            "made_of": finished.made_of,
            "version": finished.version and asdict(finished.version),
            "imported": finished.imported,
            "release": kernel.release,
            "image": kernel.image.name,
            "size": kernel.image.stat().st_size,
            "config": kernel.config and kernel.config.name,
            "log": kernel.log and kernel.log.name,
        }
        path = made / RECORD
        path.write_text(json.dumps(record, indent=1) + "\n")
        path.chmod(made.stat().st_mode & 0o666)  # as its folder, whatever the umask
        for path in made.iterdir():
            cachedir.sync(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.path(kernel.name, kernel.key)
        discard(folder)  # another program took a file out of it, or find() had returned it
        made.rename(folder)
        cachedir.sync(self.folder)
        return _kernel(folder, record)

    def prefer(self, kernel: Kernel) -> Kernel:
        """Make this kernel the newest of its name, and return it."""
        cachedir.touch(kernel.image.parent / RECORD)
        return kernel

    def remove(self, name: str) -> int:
        """Remove all finished kernels of this name, and return the bytes freed."""
        freed = 0
        for each in self.finished(name):
            freed += sum(path.stat().st_size for path in each.folder.iterdir())
            discard(each.folder)
        return freed

    def path(self, name: str, key: str) -> Path:
        """Return the folder that a kernel has, or would have."""
        return self.folder / f"{slug(name)}-{key[:20]}"

    def _read_all(self, pattern: str) -> list[Finished]:
        with contextlib.suppress(OSError):
            return [found for found in map(_read, self.folder.glob(pattern)) if found is not None]
        return []


def _newest_first(found: Iterable[Finished]) -> list[Finished]:
    return sorted(found, key=lambda each: each.made_at, reverse=True)


def _read(folder: Path) -> Finished | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((folder / RECORD).read_text())
        return Finished(
            _kernel(folder, record),
            record["made_of"],
            _version(record["version"]) if record.get("version") else None,
            record.get("imported", False),
            (folder / RECORD).stat().st_mtime_ns,
            record.get("size"),
        )
    return None


def _version(data: dict[str, Any]) -> Resolved:
    from uffdlab.kernels.apt import Resolved  # noqa: PLC0415 - completion does without

    return Resolved.of(data)


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
