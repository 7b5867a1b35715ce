"""The sources that kernels are built from, unpacked in the cache. Each has a lock: one build at a time."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab.cachedir import discard
from uffdlab.errors import HostUnsupported
from uffdlab.kernels import cache_key, host_checks, user_tree
from uffdlab.kernels.progress import automatic
from uffdlab.kernels.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path, PurePosixPath

    from uffdlab.kernels.apt import Resolved
    from uffdlab.kernels.cache import Cache
    from uffdlab.kernels.catalogue import Built, Source
    from uffdlab.kernels.progress import Progress
    from uffdlab.kernels.versions import Versions

# Free disk space required, in bytes. Measured with linux-source-6.1: 1.5 GB unpacked, 0.3 GB of package, 0.15 GB of
# objects. The sum is rounded up.
_SPACE = 2_500_000_000


@dataclass(frozen=True)
class Held:
    """The lock on a source, while it is held.

    Attributes
    ----------
    version : Resolved
        The version that is wanted. The unpacked source may have another one.
    fresh : bool
        Whether the archive was just asked for the version.
    lock : int
        File descriptor of the lock, which children inherit.
    """

    version: Resolved
    fresh: bool
    lock: int


class Sources:
    """The unpacked sources in the cache."""

    def __init__(self, cache: Cache, versions: Versions) -> None:
        self._cache = cache
        self._versions = versions

    @contextlib.contextmanager
    def hold(self, entry: Built, progress: Progress, *, refresh: bool = False) -> Iterator[Held]:
        """Hold the lock on an entry's source.

        Raises
        ------
        SourceError
            The version of the source is unknown, or the user's tree cannot be read.
        HostUnsupported
            A kernel cannot be built in the cache folder.
        """
        source = entry.source
        folder = self._cache.tree(source.name)
        if any(letter.isspace() or letter == ":" for letter in str(folder)):
            raise HostUnsupported(
                f"a kernel cannot be built in {folder}: the kernel's make does not accept a path with spaces or "
                "colons: point UFFDLAB_CACHE at a folder without them",
                missing="a plain path",
            )
        folder.mkdir(parents=True, exist_ok=True)
        if source.tree is not None:
            with self._cache.locked(f"tree {source.name}", progress) as lock:
                progress.stage(f"looking at {source.tree}")
                yield Held(self._versions.look(source).resolved(source.tree), fresh=True, lock=lock)
            return
        with self._versions.locked(entry, progress):
            version, fresh = self._versions.resolve(entry, progress, refresh=refresh)
        with self._cache.locked(f"tree {source.name}", progress) as lock:
            yield Held(version, fresh, lock)

    def unpacked(self, entry: Built, held: Held, progress: Progress) -> tuple[Tree, Resolved]:
        """Return the unpacked source and its version, which is newer than wanted if the archive has no other.

        Raises
        ------
        SourceError, HostUnsupported
            The source could not be fetched or unpacked. No incomplete files are left.
        """
        folder = self._cache.tree(entry.source.name)
        version, inherit = held.version, (held.lock,)
        tarball = entry.source.tree
        if tarball is not None and tarball.is_dir():
            return self._copied(entry.source, Tree(folder, "copy", inherit, objects=entry.objects), progress)
        tree = Tree(folder, version.debs[0].sha256, inherit, objects=entry.objects)
        if tree.unpacked:
            return tree, version
        host_checks.require_space(folder, _SPACE, f"unpacking and building {entry.package}")
        if tarball is not None:
            tree.unpack_tarball(tarball, lambda fresh: user_tree.require_kernel(fresh, tarball), progress)
            return tree, version
        with self._versions.locked(entry, progress):
            version, debs = self._versions.download(entry, version, progress, fresh=held.fresh)
            tree = Tree(folder, version.debs[0].sha256, inherit, objects=entry.objects)
            try:
                tree.unpack(debs[0], progress)
            finally:
                discard(debs[0].parent)
        return tree, version

    def _copied(self, source: Source, tree: Tree, progress: Progress) -> tuple[Tree, Resolved]:
        assert source.tree is not None
        if not tree.unpacked:
            host_checks.require_space(tree.folder, _SPACE, f"copying and building {source.tree}")
        seen = self._versions.look(source)
        user_tree.copy(source.tree, seen, tree, progress)
        return tree, seen.resolved(source.tree)

    def key(self, entry: Built) -> str | None:
        """Return the hash of an entry's package and patches, or None if the package was never looked up."""
        found = self._versions.remembered(entry)
        return cache_key.source_key(entry, found) if found else None

    def read(
        self, entry: Built, paths: Iterable[PurePosixPath], *, progress: Progress | None = None
    ) -> dict[PurePosixPath, bytes | None]:
        """Return the contents of files of an entry's source with its patches applied; None for a missing file.

        Raises
        ------
        SourceError, PatchError, HostUnsupported
            The source could not be fetched or patched. No incomplete files are left.
        """
        with self._reading(entry, progress) as (tree, _):
            return tree.read(entry.patches, entry.name, paths)

    def copy(self, entry: Built, parts: Iterable[str], into: Path, *, progress: Progress | None = None) -> str:
        """Copy files and folders of an entry's source, with its patches applied, into the folder `into`.

        Returns
        -------
        str
            The package's name and version.

        Raises
        ------
        SourceError, PatchError, HostUnsupported
            The source could not be fetched or patched. Incomplete files are left only in `into`.
        """
        with self._reading(entry, progress) as (tree, version):
            tree.copy(entry.patches, entry.name, parts, into)
        return f"{entry.package} {version.version}"

    @contextlib.contextmanager
    def _reading(self, entry: Built, progress: Progress | None) -> Iterator[tuple[Tree, Resolved]]:
        progress = progress or automatic()
        try:
            progress.start(entry.name, f"reading its source, {entry.package}")
            with host_checks.disk_errors(self._cache.folder, entry.name), self.hold(entry, progress) as held:
                yield self.unpacked(entry, held, progress)
            progress.finish("read")
        finally:
            progress.close()

    def forget(self, source: Source, progress: Progress | None = None) -> None:
        """Remove the copy of a user's tree and its objects."""
        progress = progress or automatic()
        try:
            with self._cache.locked(f"tree {source.name}", progress):
                discard(self._cache.tree(source.name))
                self._versions.forget(source)
        finally:
            progress.close()
