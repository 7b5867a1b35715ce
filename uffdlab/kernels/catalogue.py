"""Read and check the catalogue of kernels: kernel-patch/kernels.toml, then the user's own kernels.toml."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uffdlab import settings
from uffdlab.data_folders import data_folder
from uffdlab.errors import KernelError, UnknownKernel

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*")  # of a package, suite or source
_KERNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*(/[A-Za-z0-9][A-Za-z0-9.+~_-]*)*")
_LONGEST_NAME = 80  # characters
_FLAVOUR = re.compile(r"[a-z0-9]+")
_LOCALVERSION = re.compile(r"(-[a-z0-9][a-z0-9.-]*)?")


class CatalogueError(KernelError):
    """kernels.toml has an error; the message names the entry and the key."""


@dataclass(frozen=True)
class Source:
    """A kernel's source: a Debian source package in a suite, and the config that all its variants share.

    `tree` is a user's source tree (a folder or a tarball) in place of a package. `other_version` says that the source
    may have another version than `config` was written for; options of `config` that it lacks are left out.
    """

    name: str
    package: str
    suites: tuple[str, ...]
    config: tuple[Path, ...]
    tree: Path | None = None
    other_version: bool = False


@dataclass(frozen=True)
class Built:
    """A kernel to compile: a source, patch files in their order, config fragments, and a localversion.

    `on` is the kernel whose source, patches and config it starts from, or empty. `objects` is the folder beside the
    source in which it is compiled; kernels whose configs differ much should not share one. `image` is the file to
    boot, ``vmlinux`` or ``bzImage``.
    """

    name: str
    about: str
    source: Source
    patches: tuple[Path, ...]
    config: tuple[Path, ...]
    localversion: str
    on: str = ""
    objects: str = "objects"
    image: str = "vmlinux"

    @property
    def package(self) -> str:
        """The package of its source."""
        return self.source.package

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites in which the package is searched."""
        return self.source.suites


@dataclass(frozen=True)
class Flavour:
    """A way to build any kernel that is built here. ``NAME+FLAVOUR`` selects it.

    Its `config` fragments follow those of the kernel. So do its `patches`, which are listed by the name of the source.
    `objects` is the flavour whose object folder it uses, by default its own.
    """

    name: str
    config: tuple[Path, ...]
    image: str
    patches: dict[str, tuple[Path, ...]]
    objects: str


@dataclass(frozen=True)
class Packaged:
    """A kernel that Debian packages."""

    name: str
    about: str
    package: str
    suites: tuple[str, ...]


Entry = Built | Packaged


class Catalogue:
    """The kernels by name, in the order of the file."""

    def __init__(self, entries: dict[str, Entry], flavours: dict[str, Flavour] | None = None) -> None:
        self._entries = entries
        self._flavours = flavours or {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or (isinstance(name, str) and self._flavoured(name) is not None)

    def _flavoured(self, name: str) -> Built | None:
        plain, _, flavour = name.rpartition("+")
        entry = self._entries.get(plain)
        way = self._flavours.get(flavour)
        if way is None or not isinstance(entry, Built):
            return None
        return replace(
            entry,
            name=name,
            about=f"{entry.about}; {flavour} flavour",
            patches=entry.patches + way.patches.get(entry.source.name, ()),
            config=entry.config + way.config,
            localversion=f"{entry.localversion}-{flavour}",
            objects=f"objects-{way.objects}",
            image=way.image,
        )

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries.get(name) or self._flavoured(name) or self._entries[name]
        except KeyError:
            near = tuple(difflib.get_close_matches(name, self._entries, n=3, cutoff=0.5))
            guess = f"did you mean {' or '.join(near)}? " if near else ""
            raise UnknownKernel(
                f"no kernel is called {name!r}: {guess}Known are {', '.join(self._entries)}, and any path of a bzImage "
                "or vmlinux",
                kernel=name,
                near=near,
            ) from None


def default_file() -> Path:
    """Return the path of the kernels.toml that comes with uffdlab.

    Raises
    ------
    CatalogueError
        The file is missing.
    """
    path = data_folder("kernel-patch") / "kernels.toml"
    if not path.is_file():
        raise CatalogueError(
            f"{path} does not exist, and it has the names of the kernels: install uffdlab again, or give the path of a "
            "bzImage or vmlinux"
        )
    return path


def bad_name(name: str) -> str | None:
    """Return why `name` cannot be the name of a kernel, or None if it can."""
    if len(name) > _LONGEST_NAME:
        return f"a kernel's name has at most {_LONGEST_NAME} characters"
    if not _KERNEL_NAME.fullmatch(name):
        return "a kernel's name has letters, digits and . + ~ _ - in parts separated by /"
    return None


def user_folder() -> Path:
    """Return the folder of the user's own kernels.toml: ``$UFFDLAB_KERNELS``, or else the user's config folder."""
    return settings.kernels_folder()


def load(path: Path | None = None, user: Path | None = None) -> Catalogue:
    """Return the catalogue in a kernels.toml, followed by the user's own kernels.

    Parameters
    ----------
    path : Path, optional
        By default this checkout's file, followed by the user's. A path that is given is read alone.
    user : Path, optional
        A file whose kernels follow those of `path` and may be based on them. It need not exist.

    Raises
    ------
    CatalogueError
        A file cannot be read, or an entry in it is missing, unknown, or of the wrong type.
    """
    if path is None:
        user = user or user_folder() / "kernels.toml"
    found = _Found()
    _read(path or default_file(), found)
    if user is not None and user.exists():
        _read(user, found)
    return Catalogue(found.entries, found.flavours)


@dataclass
class _Found:
    # The entries read so far. `trees` is the config for users' trees.
    sources: dict[str, Source] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    flavours: dict[str, Flavour] = field(default_factory=dict)
    trees: tuple[Path, ...] = ()


def _read(path: Path, found: _Found) -> None:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path} is no TOML: {error}") from error
    top = _Table(str(path), data)
    if "trees" in top:
        table = top.table("trees")
        found.trees = _files(table, "config", path.parent)
        table.done()
    for name, table in top.tables("source"):
        if name in found.sources:
            raise table.wrong("another kernels.toml has a source of this name")
        found.sources[name] = _source(name, table, path.parent)
    for name, table in top.tables("flavour"):
        if name in found.flavours:
            raise table.wrong("another kernels.toml has a flavour of this name")
        found.flavours[name] = _flavour(name, table, path.parent)
    for name, table in top.tables("kernel"):
        if name in found.entries:
            raise table.wrong("another kernels.toml has a kernel of this name: choose another")
        found.entries[name] = _entry(name, table, path.parent, found)
    top.done()


def _source(name: str, table: _Table, folder: Path) -> Source:
    if not _NAME.fullmatch(name):
        raise table.wrong("a source's name is letters, digits and . + ~ _ -")
    source = Source(
        name,
        table.name("package"),
        table.names("suites"),
        _files(table, "config", folder),
        other_version=table.flag("other_version"),
    )
    table.done()
    return source


def _tree(path: Path, config: tuple[Path, ...]) -> Source:
    # The name comes from the path: all kernels of one tree share its copy and the object folder.
    short = re.sub(r"[^A-Za-z0-9.+_-]", "_", path.name)[:40]
    name = f"tree-{short}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    return Source(name, path.name, (), config, path, other_version=True)


def _flavour(name: str, table: _Table, folder: Path) -> Flavour:
    if not _FLAVOUR.fullmatch(name):
        raise table.wrong("a flavour's name is small letters and digits")
    patches = {}
    if "patches" in table:
        by_source = table.table("patches")
        patches = {source: _patches(by_source, folder, source) for source in by_source}
    flavour = Flavour(
        name,
        _files(table, "config", folder),
        table.text("image", "vmlinux"),
        patches,
        table.text("objects", name),
    )
    if not _FLAVOUR.fullmatch(flavour.objects):
        raise table.wrong(f"objects {flavour.objects!r} is not the name of a flavour")
    if flavour.image not in {"vmlinux", "bzImage"}:
        raise table.wrong(f"image {flavour.image!r} is neither vmlinux nor bzImage")
    table.done()
    return flavour


def _entry(name: str, table: _Table, folder: Path, found: _Found) -> Entry:
    if why := bad_name(name):
        raise table.wrong(why)
    about = table.text("about")
    entry: Entry
    if "on" in table:
        below = found.entries.get(on := table.text("on"))
        if not isinstance(below, Built):
            raise table.wrong(
                f"on {on!r}, which is " + ("no kernel listed before it" if below is None else "not built from a source")
            )
        entry = Built(
            name=name,
            about=about,
            source=below.source,
            patches=below.patches + _patches(table, folder),
            config=below.config + _files(table, "config", folder),
            localversion=_localversion(table),
            on=on,
        )
    elif "source" in table or "tree" in table:
        if "tree" in table:
            source = _tree(folder / table.text("tree"), found.trees)
        elif (text := table.text("source")) in found.sources:
            source = found.sources[text]
        else:
            raise table.wrong(f"no [source.{text}]; there are {', '.join(found.sources) or 'none'}")
        entry = Built(
            name=name,
            about=about,
            source=source,
            patches=_patches(table, folder),
            config=source.config + _files(table, "config", folder),
            localversion=_localversion(table),
        )
    else:
        entry = Packaged(name, about, table.name("package"), table.names("suites"))
    table.done()
    return entry


def _localversion(table: _Table) -> str:
    localversion = table.text("localversion", "")
    if not _LOCALVERSION.fullmatch(localversion):
        raise table.wrong(f"localversion {localversion!r} is not a - and small letters, digits, dots")
    return localversion


def _files(table: _Table, key: str, folder: Path) -> tuple[Path, ...]:
    paths = tuple(folder / name for name in table.texts(key))
    for path in paths:
        if not path.is_file():
            raise table.wrong(f"{key}: {path} is not a file")
    return paths


def _patches(table: _Table, folder: Path, key: str = "patches") -> tuple[Path, ...]:
    # A folder means all *.patch files in it, sorted by name: git format-patch numbers them.
    found: list[Path] = []
    for name in table.texts(key):
        path = folder / name
        inside = sorted(path.glob("*.patch")) if path.is_dir() else [path]
        if not inside or not all(file.is_file() for file in inside):
            raise table.wrong(f"{key}: {path} is neither a patch nor a folder with *.patch files")
        found += inside
    return tuple(found)


class _Table:
    # A TOML table that is read key by key; done() raises an error if keys are left that nobody read.

    def __init__(self, where: str, data: dict[str, Any]) -> None:
        self._where = where
        self._left = dict(data)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._left))

    def wrong(self, why: str) -> CatalogueError:
        return CatalogueError(f"{self._where}: {why}")

    def table(self, key: str) -> _Table:
        value = self._left.pop(key)
        if not isinstance(value, dict):
            raise self.wrong(f"{key} is not a table")
        return _Table(f"{self._where}: [{key}]", value)

    def tables(self, key: str) -> list[tuple[str, _Table]]:
        value = self._left.pop(key, {})
        if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
            raise self.wrong(f"{key} is not a table of tables")
        return [(name, _Table(f'{self._where}: [{key}."{name}"]', table)) for name, table in value.items()]

    def text(self, key: str, default: str | None = None) -> str:
        value = self._left.pop(key, default)
        if not isinstance(value, str):
            raise self.wrong(f"{key} is missing" if value is None else f"{key} is not a string")
        return value

    def flag(self, key: str) -> bool:
        value = self._left.pop(key, False)
        if not isinstance(value, bool):
            raise self.wrong(f"{key} is not true or false")
        return value

    def name(self, key: str) -> str:
        value = self.text(key)
        if not _NAME.fullmatch(value):
            raise self.wrong(f"{key} {value!r} is not a name of letters, digits and . + ~ _ -")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._left.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(f"{key} is not a list of strings")
        return tuple(value)

    def names(self, key: str) -> tuple[str, ...]:
        value = self.texts(key)
        if not value or not all(_NAME.fullmatch(item) for item in value):
            raise self.wrong(f"{key} is not a list of at least one name of letters, digits and . + ~ _ -")
        return value

    def done(self) -> None:
        if self._left:
            raise self.wrong(f"unknown {', '.join(self._left)}")
