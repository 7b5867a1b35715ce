"""Supply the kernels of the catalogue: from the cache, or else by fetching or building them."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uffdlab.cachedir import discard, write_atomically
from uffdlab.errors import BuildError, KernelError, SourceError
from uffdlab.kernels import build, catalogue, host_checks, image, names, pte_reader_module
from uffdlab.kernels.apt import Archive, DebianArchive
from uffdlab.kernels.cache import Cache
from uffdlab.kernels.cache_key import key_of, made_of
from uffdlab.kernels.catalogue import Built, Catalogue, Entry, Packaged, Source
from uffdlab.kernels.images import Finished, Kernel
from uffdlab.kernels.progress import automatic
from uffdlab.kernels.sources import Sources
from uffdlab.kernels.versions import Versions

if TYPE_CHECKING:
    from pathlib import Path

    from uffdlab.kernels.apt import Resolved
    from uffdlab.kernels.code_size import Sizes
    from uffdlab.kernels.progress import Progress
    from uffdlab.kernels.tree import Tree

# Free disk space required, in bytes. Measured with the objects of a 6.1 (0.15 GB) and the cloud kernels (at most 0.2 GB
# while they are unpacked), and rounded up.
_SPACE_BUILD = 400_000_000
_SPACE_PACKAGED = 400_000_000


@dataclass(frozen=True)
class Listed:
    """A kernel's name, its description, and the kernel if it is in the cache or in the shared store, else None.

    `origin` is ``"shared"``, ``"imported"``, or empty for a kernel that was fetched or built here or is not there.
    """

    name: str
    about: str
    kernel: Kernel | None
    origin: str = ""


class Supply:
    """Supplies the kernels of a catalogue.

    Parameters
    ----------
    kernels : Catalogue, optional
        By default this checkout's kernel-patch/kernels.toml.
    cache : Cache, optional
        By default the user's.
    archive : Archive, optional
        By default Debian's, from this machine's mirror.

    Attributes
    ----------
    sources : Sources
        The sources that the kernels are built from.
    """

    def __init__(
        self, kernels: Catalogue | None = None, cache: Cache | None = None, archive: Archive | None = None
    ) -> None:
        self._kernels = kernels if kernels is not None else catalogue.load()
        self._cache = cache or Cache()
        self._archive = archive or DebianArchive()
        self._versions = Versions(self._cache, self._archive)
        self.sources = Sources(self._cache, self._versions)

    def get(self, name: str, *, progress: Progress | None = None, refresh: bool = False) -> Kernel:
        """Return the kernel. Fetch or build it if it is not in the cache.

        Parameters
        ----------
        name : str
            A name in the catalogue.
        progress : Progress, optional
            Shows the progress; by default a bar. Not used if the kernel is in the cache.
        refresh : bool
            Whether to ask the archive for a newer version first.

        Raises
        ------
        UnknownKernel, SourceError, PatchError, BuildError, HostUnsupported
            The kernel could not be fetched or built. No incomplete files are left.
        """
        if not refresh and (kernel := self.find(name)):
            return kernel
        entry = self._entry(name)
        host_checks.require_platform()
        progress = progress or automatic()
        began = time.monotonic()
        try:
            with host_checks.disk_errors(self._cache.folder, name):
                if isinstance(entry, Built):
                    kernel = self._build(entry, progress, refresh)
                else:
                    kernel = self._fetch(entry, progress, refresh)
            progress.finish(f"ready ({kernel.release}), {time.monotonic() - began:.0f} s")
        finally:
            progress.close()
        return kernel

    def find(self, name: str) -> Kernel | None:
        """Return the kernel if it is in the cache or the shared store and up to date with its inputs, or else None.

        The archive is not asked: for a package, the version that was last looked up counts.

        Raises
        ------
        UnknownKernel
            The name is neither in the catalogue nor that of a kernel that was imported or is shared.
        HostUnsupported
            The shared store cannot be read.
        """
        found = self._find(name)
        return found.kernel if found else None

    def finished(self, name: str, *, progress: Progress | None = None, refresh: bool = False) -> Finished:
        """Return the kernel with the record of what it was made from; the arguments and errors are those of `get`."""
        kernel = self.get(name, progress=progress, refresh=refresh)
        found = self._find(name)
        assert found is not None
        assert found.kernel == kernel
        if found.version is None and name in self._kernels:  # published by an older uffdlab
            entry = self._kernels[name]
            version = self._versions.remembered(entry)
            assert version is not None
            found = replace(found, version=version, made_of=made_of(entry, version))
        return found

    def available(self) -> list[Listed]:
        """Return every kernel of the catalogue, and whether it is there; then kernels from elsewhere.

        Raises
        ------
        HostUnsupported
            The shared store cannot be read.
        """
        listed = []
        for entry in self._kernels:
            found = None
            with contextlib.suppress(SourceError):  # the user's tree was removed
                found = self._find(entry.name)
            listed.append(self._listed(entry.name, entry.about, found))
        others = [(name, about) for name, about in self.names().items() if name not in self._kernels]
        return listed + [self._listed(name, about, self._from_elsewhere(name)) for name, about in others]

    def names(self) -> dict[str, str]:
        """Return the name and the description of every kernel: of the catalogue, then those from elsewhere."""
        return names.names(self._kernels, self._cache)

    def log(self, name: str) -> Path | None:
        """Return the path of the log of the kernel's last build, failed or not, or None if there is no log."""
        failed = self._cache.log(self._kernels[name].name)
        if failed.is_file():
            return failed
        kernels = [each.kernel for each in self._cache.images.finished(name)]
        if found := self._find(name):
            kernels.append(found.kernel)
        return next((kernel.log for kernel in kernels if kernel.log), None)

    def sizes(self, *names: str, progress: Progress | None = None) -> tuple[Sizes, ...]:
        """Return the code sizes of kernels that are built here. A kernel that was not measured is compiled again.

        Raises
        ------
        KernelError
            A kernel comes as a package, so it has no objects.
        UnknownKernel, SourceError, PatchError, BuildError, HostUnsupported
            A kernel could not be fetched or built.
        """
        entries = [self.built(name, "to measure the objects of") for name in names]
        return tuple(self._sizes(entry, progress) for entry in entries)

    def _sizes(self, entry: Built, progress: Progress | None) -> Sizes:
        from uffdlab.kernels import code_size  # noqa: PLC0415 - most kernels come from the cache and are not measured

        name = entry.name
        kernel = self.get(name)
        file = kernel.image.parent / code_size.FILE
        if (known := code_size.load(file, name)) is not None:
            return known
        if self._origin(self._find(name)):
            raise KernelError(
                f"{name} was not built here, so its objects cannot be measured: build it, "
                f"`uffdlab kernel build --refresh {name}`",
                kernel=name,
            )
        progress = progress or automatic()
        try:
            progress.start(name, "was built without measuring it, compiling its objects again")
            with host_checks.disk_errors(self._cache.folder, name), self.sources.hold(entry, progress) as held:
                tree, found = self.sources.unpacked(entry, held, progress)
                if key_of(entry, found) != kernel.key:
                    raise KernelError(f"{name}: its source changed while it was measured: try again", kernel=name)
                tree.switch_to(entry.patches, name)
                build.build(entry, tree, self._cache.log(name), progress, (held.lock,))
                made = code_size.measure(tree.objects, name)
                write_atomically(file, code_size.dump(made))
                self._cache.log(name).unlink()
            progress.finish("measured")
            return made
        finally:
            progress.close()

    def pte_reader(self, name: str, *, progress: Progress | None = None) -> Path | None:
        """Return the path of the PTE reader's module for a packaged kernel, or None if the kernel has it built in.

        Raises
        ------
        KernelError
            The kernel was built here without the reader.
        UnknownKernel, SourceError, BuildError, HostUnsupported
            The kernel or the module could not be fetched or built.
        """
        entry = self._entry(name)
        kernel = self.get(name)
        if isinstance(entry, Packaged):
            progress = progress or automatic()
            try:
                with host_checks.disk_errors(self._cache.folder, name):
                    return pte_reader_module.module_for(kernel, entry, self._cache, self._archive, progress)
            finally:
                progress.close()
        if kernel.config is None or "CONFIG_PTE_READER=y\n" not in kernel.config.read_text():
            raise KernelError(
                f"{name} was built without the PTE reader: add kernel-patch/6.1/pte-reader to its patches, or use "
                "the physical witness, which needs no support from the kernel",
                kernel=name,
            )
        return None

    def remove(self, name: str) -> int:
        """Remove all builds of the kernel from the cache, and return the bytes freed.

        Unpacked sources stay, and so does the shared store.
        """
        found = self._cache.images.finished(name) if name not in self._kernels else []
        if not any(each.imported for each in found):
            name = self._kernels[name].name
        self._cache.log(name).unlink(missing_ok=True)
        return self._cache.images.remove(name)

    def forget_tree(self, source: Source, progress: Progress | None = None) -> None:
        """Remove the copy of a user's tree and its objects, unless a kernel of the catalogue is built from it."""
        if source.tree is not None and not any(
            isinstance(each, Built) and each.source == source for each in self._kernels
        ):
            self.sources.forget(source, progress)

    def built(self, name: str, purpose: str) -> Built:
        """Return the entry of a kernel that is built here.

        Parameters
        ----------
        purpose : str
            What the source is for, used in the error: ``to patch``.

        Raises
        ------
        KernelError
            The kernel comes as a package, without a source.
        UnknownKernel
            The catalogue has no kernel of this name.
        """
        entry = self._entry(name)
        if not isinstance(entry, Built):
            raise KernelError(
                f"{name} comes as a package, so there is no source {purpose}: choose a kernel that is built here, "
                f"{', '.join(each.name for each in self._kernels if isinstance(each, Built))}",
                kernel=name,
            )
        return entry

    def source_of(self, name: str, *, progress: Progress | None = None) -> Built:
        """Return an entry with the source of a kernel. That of a packaged kernel is the linux-source of its series.

        Raises
        ------
        UnknownKernel, SourceError, BuildError, HostUnsupported
            The kernel could not be fetched or built.
        """
        entry = self._entry(name)
        if isinstance(entry, Built):
            return entry
        series = re.match(r"\d+\.\d+", self.get(name, progress=progress).release)
        if series is None:
            raise KernelError(
                f"{name}: its release does not begin with a series like 6.1, so its source is unknown: choose a kernel "
                "that is built here",
                kernel=name,
            )
        package = f"linux-source-{series[0]}"
        built = [each for each in self._kernels if isinstance(each, Built)]
        known = [each.source for each in built if (each.package, each.suites) == (package, entry.suites)]
        source = known[0] if known else Source(f"{package}-{entry.suites[0]}", package, entry.suites, ())
        return Built(name, entry.about, source, (), (), "")

    def _fetch(self, entry: Packaged, progress: Progress, refresh: bool) -> Kernel:
        root = self._cache.apt_root(entry.suites)
        root.mkdir(parents=True, exist_ok=True)
        from uffdlab.kernels.unpack import from_packages  # noqa: PLC0415 - its decompressors take long to import

        progress.start(entry.name, f"{_why(refresh)}, fetching Debian's package")
        with self._versions.locked(entry, progress):
            found, fresh = self._versions.resolve(entry, progress, refresh=refresh)
            if kernel := self._cache.images.find(entry.name, key_of(entry, found)):
                return self._cache.images.prefer(kernel)
            host_checks.require_space(root, _SPACE_PACKAGED, f"fetching {entry.name}")
            found, debs = self._versions.download(entry, found, progress, fresh=fresh)
            out = root / "out"
            discard(out)
            out.mkdir()
            try:
                progress.stage("unpacking the image")
                made = replace(from_packages(debs, out), name=entry.name, key=key_of(entry, found))
                return self._cache.images.publish(out, Finished(made, made_of(entry, found), found))
            finally:
                discard(root / "debs")
                discard(out)

    def _build(self, entry: Built, progress: Progress, refresh: bool) -> Kernel:
        host_checks.require_build_tools()
        progress.start(entry.name, f"{_why(refresh)}, building it from {entry.package}")
        with self.sources.hold(entry, progress, refresh=refresh) as held:
            if kernel := self._cache.images.find(entry.name, key_of(entry, held.version)):
                return self._cache.images.prefer(kernel)
            tree, found = self.sources.unpacked(entry, held, progress)
            host_checks.require_space(tree.folder, _SPACE_BUILD, f"building {entry.name}")
            tree.switch_to(entry.patches, entry.name)
            log = self._cache.log(entry.name)
            release = build.build(entry, tree, log, progress, (held.lock,))
            return self._publish_build(entry, tree, found, release, log)

    def _publish_build(self, entry: Built, tree: Tree, found: Resolved, release: str, log: Path) -> Kernel:
        from uffdlab.kernels import code_size  # noqa: PLC0415

        out = tree.folder / "out"
        discard(out)
        out.mkdir()
        try:
            key = key_of(entry, found)
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
            with contextlib.suppress(KernelError):  # before 6.1 there is no vmlinux.a, the list of linked objects
                (out / code_size.FILE).write_bytes(code_size.dump(code_size.measure(tree.objects, entry.name)))
            kernel = self._cache.images.publish(out, Finished(made, made_of(entry, found), found))
        finally:
            discard(out)
        log.unlink()
        return kernel

    def _entry(self, name: str) -> Entry:
        if name not in self._kernels and self._from_elsewhere(name):
            raise KernelError(
                f"{name} comes from elsewhere, and this catalogue has no source or package of it: only the finished "
                "kernel is here",
                kernel=name,
            )
        return self._kernels[name]

    def _find(self, name: str) -> Finished | None:
        if name not in self._kernels and (found := self._from_elsewhere(name)):
            return found
        entry = self._kernels[name]
        version = self._versions.remembered(entry)
        made = self._made_here(entry, version) if version else None
        for each in self._cache.images.usable(entry.name):
            # Whichever is newer: an import, or a build or download after it.
            if (made and each.kernel == made) or (each.imported and _is_up_to_date(entry, each)):
                return each
        shared = self._cache.shared.require_readable().usable(entry.name) if self._cache.shared else []
        return next((each for each in shared if _is_up_to_date(entry, each)), None)

    def _made_here(self, entry: Entry, version: Resolved) -> Kernel | None:
        if isinstance(entry, Built) and not host_checks.toolchain():
            # This host cannot build kernels, so a kernel in the cache is good whichever compiler built it.
            wanted = made_of(entry, version)
            usable = self._cache.images.usable(entry.name)
            return next((each.kernel for each in usable if each.made_of == wanted), None)
        return self._cache.images.find(entry.name, key_of(entry, version))

    def _from_elsewhere(self, name: str) -> Finished | None:
        # A kernel that was imported or is shared, whatever it was made from.
        found = [each for each in self._cache.images.usable(name) if each.imported]
        if not found and self._cache.shared is not None:
            found = self._cache.shared.require_readable().usable(name)
        return found[0] if found else None

    def _listed(self, name: str, about: str, found: Finished | None) -> Listed:
        return Listed(name, about, found.kernel if found else None, self._origin(found))

    def _origin(self, found: Finished | None) -> str:
        if found is None:
            return ""
        if found.folder.parent != self._cache.images.folder:
            return "shared"
        return "imported" if found.imported else ""


def _is_up_to_date(entry: Entry, finished: Finished) -> bool:
    # Whether it was made with this catalogue's patches and configuration, from any version of the source, with any
    # compiler.
    return finished.version is not None and finished.made_of == made_of(entry, finished.version)


def _why(refresh: bool) -> str:
    return "looking for a newer version" if refresh else "not in the cache"
