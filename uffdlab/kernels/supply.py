"""Give a kernel by name: from the cache, else fetched or built."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from uffdlab.errors import BuildError, HostUnsupported, KernelError, SourceError, UnknownKernel
from uffdlab.kernels import build, catalogue, host, image, local, reader, sizes
from uffdlab.kernels.apt import Archive, Deb, DebianArchive, Resolved
from uffdlab.kernels.cache import Cache, Kernel, discard, write_atomically
from uffdlab.kernels.catalogue import Built, Catalogue, Entry, Packaged, Source
from uffdlab.kernels.progress import automatic
from uffdlab.kernels.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uffdlab.kernels.progress import Progress
    from uffdlab.kernels.sizes import Sizes

# Free disk space asked for, in bytes: measured with linux-source-6.1 (1.5 GB unpacked, 0.3 GB of package, 0.15 GB of
# objects) and the cloud kernels (0.2 GB at most while unpacking), and rounded up.
_SPACE_SOURCE = 2_500_000_000
_SPACE_BUILD = 400_000_000
_SPACE_PACKAGED = 400_000_000


@dataclass(frozen=True)
class Listed:
    """A kernel of the catalogue: its name, what it is, and the kernel itself if it is in the cache."""

    name: str
    about: str
    kernel: Kernel | None


class Supply:
    """Where kernels come from.

    Parameters
    ----------
    kernels : Catalogue, optional
        By default this checkout's kernel-patch/kernels.toml.
    cache : Cache, optional
        By default the user's.
    archive : Archive, optional
        By default Debian's, from this machine's mirror.
    """

    def __init__(
        self, kernels: Catalogue | None = None, cache: Cache | None = None, archive: Archive | None = None
    ) -> None:
        self._kernels = kernels if kernels is not None else catalogue.load()
        self._cache = cache or Cache()
        self._archive = archive or DebianArchive()

    def get(self, name: str, *, progress: Progress | None = None, refresh: bool = False) -> Kernel:
        """Give the kernel, fetched or built if it is not in the cache.

        Parameters
        ----------
        name : str
            A name in the catalogue.
        progress : Progress, optional
            Told how far it is; by default a bar. Not used when the kernel is in the cache.
        refresh : bool
            Ask the archive for a newer version first.

        Raises
        ------
        UnknownKernel, SourceError, PatchError, BuildError, HostUnsupported
            It cannot be had; nothing half-done is left.
        """
        entry = self._kernels[name]
        if not refresh and (kernel := self._cached(entry)):
            return kernel
        host.require_platform()
        progress = progress or automatic()
        began = time.monotonic()
        try:
            with self._disk_errors(name):
                if isinstance(entry, Built):
                    kernel = self._build(entry, progress, refresh)
                else:
                    kernel = self._fetch(entry, progress, refresh)
            progress.finish(f"ready ({kernel.release}), {time.monotonic() - began:.0f} s")
        finally:
            progress.close()
        return kernel

    def find(self, name: str) -> Kernel | None:
        """Give the kernel if it is in the cache, up to date with its inputs as far as is known here; else None."""
        return self._cached(self._kernels[name])

    def available(self) -> list[Listed]:
        """List the catalogue, and what of it is in the cache."""
        listed = []
        for entry in self._kernels:
            kernel = None
            with contextlib.suppress(SourceError):  # the user's tree is gone
                kernel = self._cached(entry)
            listed.append(Listed(entry.name, entry.about, kernel))
        return listed

    def log(self, name: str) -> Path | None:
        """Give the log of the kernel's last build, a failed one too; None if there is none."""
        failed = self._cache.log(self._kernels[name].name)
        if failed.is_file():
            return failed
        return next((kernel.log for kernel in self._cache.finished(name) if kernel.log), None)

    def sizes(self, *names: str, progress: Progress | None = None) -> tuple[Sizes, ...]:
        """Measure the code of kernels that are built here; one is compiled again where its objects are needed.

        Raises
        ------
        KernelError
            One comes as a package, without objects.
        UnknownKernel, SourceError, PatchError, BuildError, HostUnsupported
            One cannot be had.
        """
        entries = [self._built(name, "to measure the objects of") for name in names]
        return tuple(self._sizes(entry, progress) for entry in entries)

    def _sizes(self, entry: Built, progress: Progress | None) -> Sizes:
        name = entry.name
        kernel = self.get(name)
        file = kernel.image.parent / sizes.FILE
        if (known := sizes.load(file, name)) is not None:
            return known
        progress = progress or automatic()
        try:
            progress.start(name, "was built without measuring it, compiling its objects again")
            with self._disk_errors(name), self._source(entry, progress, refresh=False) as (remembered, fresh, lock):
                tree, found = self._unpacked(entry, remembered, fresh, lock, progress)
                if key_of(entry, found) != kernel.key:
                    raise KernelError(f"{name}: its source changed just now: try again", kernel=name)
                tree.switch_to(entry.patches, name)
                build.build(entry, tree, self._cache.log(name), progress, (lock,))
                made = sizes.measure(tree.objects, name)
                write_atomically(file, sizes.dump(made))
                self._cache.log(name).unlink()
            progress.finish("measured")
            return made
        finally:
            progress.close()

    def pte_reader(self, name: str, *, progress: Progress | None = None) -> Path | None:
        """Give the PTE reader as a module for a packaged kernel; None if the kernel has it built in.

        Raises
        ------
        KernelError
            The kernel is built here, without the reader.
        UnknownKernel, SourceError, BuildError, HostUnsupported
            It cannot be had.
        """
        entry = self._kernels[name]
        kernel = self.get(name)
        if isinstance(entry, Packaged):
            progress = progress or automatic()
            try:
                with self._disk_errors(name):
                    return reader.module_for(kernel, entry, self._cache, self._archive, progress)
            finally:
                progress.close()
        if kernel.config is None or "CONFIG_PTE_READER=y\n" not in kernel.config.read_text():
            raise KernelError(
                f"{name} was built without the PTE reader: add kernel-patch/6.1/pte-reader to its patches, or look "
                "with the physical witness, which needs nothing of the kernel",
                kernel=name,
            )
        return None

    def remove(self, name: str) -> int:
        """Remove the kernel, older builds of it too, from the cache; give the bytes freed. Packaged sources stay."""
        return self._cache.remove(self._kernels[name].name)

    def forget_tree(self, source: Source, progress: Progress | None = None) -> None:
        """Remove the copy of a user's tree and its objects, unless a kernel of the catalogue is made from it."""
        if source.tree is None or any(isinstance(each, Built) and each.source == source for each in self._kernels):
            return
        progress = progress or automatic()
        try:
            with self._cache.locked(f"tree {source.name}", progress):
                discard(self._cache.tree(source.name))
                self._tree_memo(source).unlink(missing_ok=True)
        finally:
            progress.close()

    def read(
        self, name: str, paths: Iterable[PurePosixPath], *, progress: Progress | None = None
    ) -> dict[PurePosixPath, bytes | None]:
        """Give files of the source that a kernel is built from, its patches on it; None for one that is not there.

        Parameters
        ----------
        name : str
            A kernel that is built here. Its source is fetched if it is not in the cache.

        Raises
        ------
        KernelError
            The kernel has no source here.
        UnknownKernel, SourceError, PatchError, HostUnsupported
            The source cannot be had; nothing half-done is left.
        """
        entry = self._built(name, "to patch")
        progress = progress or automatic()
        try:
            progress.start(name, f"reading its source, {entry.package}")
            with self._disk_errors(name), self._source(entry, progress, refresh=False) as (found, fresh, lock):
                tree, _ = self._unpacked(entry, found, fresh, lock, progress)
                files = tree.read(entry.patches, name, paths)
            progress.finish("read")
            return files
        finally:
            progress.close()

    def source_of(self, name: str, *, progress: Progress | None = None) -> Built:
        """Give a kernel's entry as if it were to be built: a packaged one has the linux-source package of its series.

        Raises
        ------
        UnknownKernel, SourceError, BuildError, HostUnsupported
            The kernel cannot be had.
        """
        entry = self._kernels[name]
        if isinstance(entry, Built):
            return entry
        series = re.match(r"\d+\.\d+", self.get(name, progress=progress).release)
        if series is None:
            raise KernelError(
                f"{name}: its release names no series of kernels, so its source is not known", kernel=name
            )
        package = f"linux-source-{series[0]}"
        built = [each for each in self._kernels if isinstance(each, Built)]
        known = [each.source for each in built if (each.package, each.suites) == (package, entry.suites)]
        source = known[0] if known else Source(f"{package}-{entry.suites[0]}", package, entry.suites, ())
        return Built(name, entry.about, source, (), (), "")

    def source_key(self, entry: Built) -> str | None:
        """Hash what a kernel's source is made of, as far as is known here: the package and the patches; else None."""
        found = self._remembered(entry)
        if found is None:
            return None
        parts = [found.debs[0].sha256, *(_digest(patch) for patch in entry.patches)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def copy_source(self, entry: Built, parts: Iterable[str], into: Path, *, progress: Progress | None = None) -> str:
        """Copy parts of a kernel's source, its patches on it, and give its package with the version.

        Raises
        ------
        SourceError, PatchError, HostUnsupported
            The source cannot be had; nothing half-done is left but in `into`.
        """
        progress = progress or automatic()
        try:
            progress.start(entry.name, f"reading its source, {entry.package}")
            with self._disk_errors(entry.name), self._source(entry, progress, refresh=False) as (known, fresh, lock):
                tree, found = self._unpacked(entry, known, fresh, lock, progress)
                tree.copy(entry.patches, entry.name, parts, into)
            progress.finish("read")
        finally:
            progress.close()
        return f"{entry.package} {found.version}"

    def _built(self, name: str, purpose: str) -> Built:
        entry = self._kernels[name]
        if not isinstance(entry, Built):
            raise KernelError(
                f"{name} comes as a package, so there is no source {purpose}: choose one that is built, "
                f"{', '.join(each.name for each in self._kernels if isinstance(each, Built))}",
                kernel=name,
            )
        return entry

    # --- the two ways

    def _fetch(self, entry: Packaged, progress: Progress, refresh: bool) -> Kernel:
        root = self._cache.apt_root(entry.suites)
        self._make_cache_folder(root)
        progress.start(entry.name, f"{_why(refresh)}, fetching Debian's package")
        with self._cache.locked(_apt_lock(entry), progress):
            found, fresh = self._resolve(entry, progress, refresh)
            if kernel := self._cache.find(entry.name, key_of(entry, found)):
                return kernel
            host.require_space(root, _SPACE_PACKAGED, f"fetching {entry.name}")
            found, debs = self._download(entry, found, fresh, progress)
            out = root / "out"
            discard(out)
            out.mkdir()
            try:
                progress.stage("unpacking the image")
                made = image.from_packages(debs, out)
                return self._cache.publish(out, replace(made, name=entry.name, key=key_of(entry, found)))
            finally:
                discard(root / "debs")
                discard(out)

    def _build(self, entry: Built, progress: Progress, refresh: bool) -> Kernel:
        host.require_build_tools()
        progress.start(entry.name, f"{_why(refresh)}, building it from {entry.package}")
        with self._source(entry, progress, refresh) as (known, fresh, lock):
            if kernel := self._cache.find(entry.name, key_of(entry, known)):
                return kernel
            tree, found = self._unpacked(entry, known, fresh, lock, progress)
            host.require_space(tree.folder, _SPACE_BUILD, f"building {entry.name}")
            tree.switch_to(entry.patches, entry.name)
            log = self._cache.log(entry.name)
            release = build.build(entry, tree, log, progress, (lock,))
            return self._publish_build(entry, tree, key_of(entry, found), release, log)

    @contextlib.contextmanager
    def _source(self, entry: Built, progress: Progress, refresh: bool) -> Iterator[tuple[Resolved, bool, int]]:
        # The lock on the entry's source tree; which version it is, and whether the archive was asked just now.
        folder = self._cache.tree(entry.source.name)
        if any(letter.isspace() or letter == ":" for letter in str(folder)):
            raise HostUnsupported(
                f"a kernel cannot be built in {folder}: the kernel's make takes no path with spaces or colons; "
                "point UFFDLAB_CACHE elsewhere",
                missing="a plain path",
            )
        self._make_cache_folder(folder)
        if entry.source.tree is not None:
            with self._cache.locked(f"tree {entry.source.name}", progress) as lock:
                progress.stage(f"looking at {entry.source.tree}")
                yield self._look(entry.source).resolved(entry.source.tree), True, lock
            return
        with self._cache.locked(_apt_lock(entry), progress):
            found, fresh = self._resolve(entry, progress, refresh)
        with self._cache.locked(f"tree {entry.source.name}", progress) as lock:
            yield found, fresh, lock

    def _unpacked(
        self, entry: Built, found: Resolved, fresh: bool, lock: int, progress: Progress
    ) -> tuple[Tree, Resolved]:
        folder = self._cache.tree(entry.source.name)
        if entry.source.tree is not None and entry.source.tree.is_dir():
            return self._copied(entry.source, Tree(folder, "copy", (lock,), objects=entry.objects), progress)
        tree = Tree(folder, found.debs[0].sha256, (lock,), objects=entry.objects)
        if tree.unpacked:
            return tree, found
        host.require_space(folder, _SPACE_SOURCE, f"unpacking and building {entry.package}")
        if (tarball := entry.source.tree) is not None:
            tree.unpack_tarball(tarball, lambda fresh: local.require_kernel(fresh, tarball), progress)
            return tree, found
        with self._cache.locked(_apt_lock(entry), progress):
            found, debs = self._download(entry, found, fresh, progress)
            tree = Tree(folder, found.debs[0].sha256, (lock,), objects=entry.objects)
            try:
                tree.unpack(debs[0], progress)
            finally:
                discard(debs[0].parent)
        return tree, found

    def _copied(self, source: Source, tree: Tree, progress: Progress) -> tuple[Tree, Resolved]:
        assert source.tree is not None
        if not tree.unpacked:
            host.require_space(tree.folder, _SPACE_SOURCE, f"copying and building {source.tree}")
        seen = self._look(source)
        local.copy(source.tree, seen, tree, progress)
        return tree, seen.resolved(source.tree)

    def _look(self, source: Source) -> local.Found:
        assert source.tree is not None
        return local.look(source.tree, self._tree_memo(source))

    def _tree_memo(self, source: Source) -> Path:
        return self._cache.folder / "resolved" / f"{source.name}.json"

    def _publish_build(self, entry: Built, tree: Tree, key: str, release: str, log: Path) -> Kernel:
        out = tree.folder / "out"
        discard(out)
        out.mkdir()
        try:
            made = Kernel(entry.name, out / entry.image, release, key, out / "config", out / "build.log")
            where = "arch/x86/boot/bzImage" if entry.image == "bzImage" else entry.image
            shutil.copy(tree.objects / where, made.image)
            try:
                image.inspect(made.image.read_bytes())
            except image.NotAKernel as error:
                raise BuildError(
                    f"{entry.name}: the {entry.image} that was built is {error}", kernel=entry.name, log=str(log)
                ) from error
            shutil.copy(tree.objects / ".config", out / "config")
            shutil.copy(log, out / "build.log")
            with contextlib.suppress(KernelError):  # before 6.1 there is no list of what is linked
                (out / sizes.FILE).write_bytes(sizes.dump(sizes.measure(tree.objects, entry.name)))
            kernel = self._cache.publish(out, made)
        finally:
            discard(out)
        log.unlink()
        return kernel

    # --- which version

    def _cached(self, entry: Entry) -> Kernel | None:
        found = self._remembered(entry)
        return self._cache.find(entry.name, key_of(entry, found)) if found else None

    def _memo(self, entry: Entry) -> Path:
        name = hashlib.sha256(json.dumps([entry.package, entry.suites]).encode()).hexdigest()[:16]
        return self._cache.folder / "resolved" / f"{entry.package}-{name}.json"

    def _remembered(self, entry: Entry) -> Resolved | None:
        if isinstance(entry, Built) and entry.source.tree is not None:
            return self._look(entry.source).resolved(entry.source.tree)
        try:
            memo = json.loads(self._memo(entry).read_text())
            return Resolved(memo["package"], memo["version"], tuple(Deb(**deb) for deb in memo["debs"]))
        except (OSError, ValueError, KeyError, TypeError):  # not looked up yet, or the note was damaged
            return None

    def _resolve(self, entry: Entry, progress: Progress, refresh: bool) -> tuple[Resolved, bool]:
        # The version, and whether the archive was asked just now.
        found = None if refresh else self._remembered(entry)
        if found:
            return found, False
        found = self._archive.resolve(entry.package, entry.suites, self._cache.apt_root(entry.suites), progress)
        write_atomically(self._memo(entry), json.dumps(asdict(found), indent=1).encode())
        return found, True

    def _download(self, entry: Entry, found: Resolved, fresh: bool, progress: Progress) -> tuple[Resolved, list[Path]]:
        root = self._cache.apt_root(entry.suites)
        try:
            return found, self._archive.download(found, entry.suites, root, progress)
        except SourceError:
            if fresh:
                raise
        # The archive keeps only the newest versions: the remembered one may be gone.
        found, _ = self._resolve(entry, progress, refresh=True)
        return found, self._archive.download(found, entry.suites, root, progress)

    # --- the disk

    def _make_cache_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _disk_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, KernelError):
                raise
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise host.disk_full(self._cache.folder, name) from error
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise HostUnsupported(
                    f"{name}: {error.filename or self._cache.folder} cannot be written ({error.strerror}): point "
                    "UFFDLAB_CACHE at a folder of yours",
                    missing="a writable cache",
                ) from error
            if error.errno in {errno.ENOENT, errno.ENOTDIR} and not self._cache.folder.is_dir():
                raise HostUnsupported(
                    f"{name}: there can be no folder {self._cache.folder} for kernels ({error.strerror}): point "
                    "UFFDLAB_CACHE at a folder of yours",
                    missing="a writable cache",
                ) from error
            raise


def key_of(entry: Entry, found: Resolved) -> str:
    """Hash everything that goes into a kernel, hexadecimal."""
    inputs: dict[str, object] = {"debs": [(deb.package, deb.version, deb.sha256) for deb in found.debs]}
    if isinstance(entry, Built):
        inputs |= {
            "recipe": build.RECIPE,
            "patches": [_digest(patch) for patch in entry.patches],
            "config": [_digest(fragment) for fragment in entry.config],
            "localversion": entry.localversion,
            "toolchain": host.toolchain(),
        } | ({"image": entry.image} if entry.image != "vmlinux" else {})
    else:
        inputs["recipe"] = image.RECIPE
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def given(path: Path) -> Kernel:
    """Take an image file as it is.

    Raises
    ------
    UnknownKernel
        There is no such file.
    KernelError
        It is no kernel that QEMU could start.
    """
    name = str(path)
    try:
        data = path.expanduser().read_bytes()
        found = image.inspect(data)
    except OSError as error:
        raise UnknownKernel(
            f"{name}: {error.strerror}: give the path of a bzImage or vmlinux, or a name of kernel-patch/kernels.toml",
            kernel=name,
        ) from error
    except image.NotAKernel as error:
        raise KernelError(f"{name} is {error}: give the path of a bzImage or a vmlinux", kernel=name) from error
    return Kernel(name, path.expanduser().absolute(), found.release, hashlib.sha256(data).hexdigest())


def pte_reader(name: str | os.PathLike[str]) -> Path | None:
    """Give the PTE reader as a module for a kernel; see :meth:`Supply.pte_reader`.

    Raises
    ------
    KernelError
        The kernel was given by its path, so that there are no headers to build it against.
    """
    kernels = catalogue.load()
    if not isinstance(name, str) or name not in kernels:
        raise KernelError(
            f"{name}: the PTE reader is built against the headers of a kernel that Debian packages; this is an image",
            kernel=str(name),
        )
    return Supply(kernels).pte_reader(name)


def get(name: str | os.PathLike[str], *, progress: Progress | None = None, refresh: bool = False) -> Kernel:
    """Give a kernel by its name or by the path of a bzImage or vmlinux; see :meth:`Supply.get`."""
    if not isinstance(name, str) or name.startswith(("/", "./", "../", "~")):
        return given(Path(name))
    kernels = catalogue.load()
    if name not in kernels and Path(name).is_file():
        return given(Path(name))
    return Supply(kernels).get(name, progress=progress, refresh=refresh)


def _why(refresh: bool) -> str:
    return "looking for a newer version" if refresh else "not here yet"


def _apt_lock(entry: Entry) -> str:
    return f"apt {'+'.join(entry.suites)}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
