"""The version that a kernel is built from: of a package, as it was last looked up; of a user's tree, as it is now."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from uffdlab.cachedir import write_atomically
from uffdlab.errors import SourceError
from uffdlab.kernels import user_tree
from uffdlab.kernels.apt import KERNEL_PARTS, Resolved
from uffdlab.kernels.catalogue import Built, Packaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uffdlab.kernels.apt import Archive
    from uffdlab.kernels.cache import Cache
    from uffdlab.kernels.catalogue import Entry, Source
    from uffdlab.kernels.progress import Progress


class Versions:
    """The versions of packages and trees, remembered in the cache's folder ``resolved``."""

    def __init__(self, cache: Cache, archive: Archive) -> None:
        self._cache = cache
        self._archive = archive

    @contextlib.contextmanager
    def locked(self, entry: Entry, progress: Progress) -> Iterator[None]:
        """Hold the lock on the private apt root of the entry's suites."""
        with self._cache.locked(f"apt {'+'.join(entry.suites)}", progress):
            yield

    def remembered(self, entry: Entry) -> Resolved | None:
        """Return the version that was last looked up, or None. For a user's tree, return its present state.

        Raises
        ------
        SourceError
            The user's tree cannot be read.
        """
        if isinstance(entry, Built) and entry.source.tree is not None:
            return self.look(entry.source).resolved(entry.source.tree)
        try:
            return Resolved.of(json.loads(self._cached_version(entry).read_text()))
        except (OSError, ValueError, KeyError, TypeError):  # not looked up yet, or the file is damaged
            return None

    def resolve(self, entry: Entry, progress: Progress, *, refresh: bool) -> tuple[Resolved, bool]:
        """Return the version, and whether the archive was asked for it in this call. The caller holds the lock.

        Raises
        ------
        SourceError
            The archive does not have the package.
        """
        found = None if refresh else self.remembered(entry)
        if found:
            return found, False
        found = self._archive.resolve(entry.package, entry.suites, self._cache.apt_root(entry.suites), progress)
        write_atomically(self._cached_version(entry), json.dumps(asdict(found), indent=1).encode())
        return found, True

    def download(
        self, entry: Entry, found: Resolved, progress: Progress, *, fresh: bool
    ) -> tuple[Resolved, list[Path]]:
        """Fetch the packages of a version. Return the version and the package files. The caller holds the lock.

        Parameters
        ----------
        fresh : bool
            Whether the archive was just asked for this version. The archive may no longer have the files of an older
            one; then it is asked again, and the version that is returned differs from `found`.

        Raises
        ------
        SourceError
            The packages could not be fetched.
        """
        root = self._cache.apt_root(entry.suites)
        try:
            return found, self._archive.download(found, entry.suites, root, progress)
        except SourceError:
            if fresh:
                raise
        found, _ = self.resolve(entry, progress, refresh=True)
        return found, self._archive.download(found, entry.suites, root, progress)

    def look(self, source: Source) -> user_tree.Found:
        """Return the state of a user's tree.

        Raises
        ------
        SourceError
            The tree does not exist, cannot be read, or is not a kernel's.
        """
        assert source.tree is not None
        return user_tree.read_state(source.tree, self._tree_memo(source))

    def forget(self, source: Source) -> None:
        """Remove the remembered state of a user's tree."""
        self._tree_memo(source).unlink(missing_ok=True)

    def _cached_version(self, entry: Entry) -> Path:
        what = [entry.package, entry.suites]
        if isinstance(entry, Packaged):
            what.append(KERNEL_PARTS.pattern)  # another pattern finds other packages, so it needs its own file
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        return self._cache.folder / "resolved" / f"{entry.package}-{name}.json"

    def _tree_memo(self, source: Source) -> Path:
        return self._cache.folder / "resolved" / f"{source.name}.json"
