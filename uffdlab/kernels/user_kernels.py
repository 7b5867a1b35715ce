"""The user's own kernels: entries in the kernels.toml of the user's folder, with copies of their patches beside it."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab.cachedir import discard, locked_file, slug, write_atomically
from uffdlab.errors import KernelError, PatchError, UsageError
from uffdlab.kernels import catalogue
from uffdlab.kernels.build import no_options, turned_off
from uffdlab.kernels.catalogue import Built
from uffdlab.kernels.patches.am import Port, patches_of
from uffdlab.kernels.patches.mail import SIZE
from uffdlab.kernels.supply import Supply
from uffdlab.kernels.tree import touched_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uffdlab.kernels.catalogue import Catalogue

    MakeSupply = Callable[[Catalogue], Supply]


_LONGEST_FILE_NAME = 100  # characters of a patch's file name
_LONGEST_VERSION = 32  # characters of the kernel's name in its release (uname -r has 64)
# To add a kernel may mean to fetch a source, and to wait for the build of another kernel.
_LOCK_DEADLINE = 2 * 3600.0  # s


class UserKernels:
    """The kernels that the user added.

    Parameters
    ----------
    folder : Path, optional
        The folder of their kernels.toml; by default ``$UFFDLAB_KERNELS``, or else the user's config folder.
    project : Path, optional
        The kernels.toml with kernels that they may be based on; by default this checkout's.
    supply : callable, optional
        Returns the Supply for a Catalogue.
    deadline : float
        How long to wait for another process that changes the file, in seconds.
    """

    def __init__(
        self,
        folder: Path | None = None,
        project: Path | None = None,
        supply: MakeSupply | None = None,
        deadline: float = _LOCK_DEADLINE,
    ) -> None:
        self._deadline = deadline
        self.folder = folder or catalogue.user_folder()
        self.file = self.folder / "kernels.toml"
        self._project = project or catalogue.default_file()
        self._supply = supply or Supply

    def load(self) -> Catalogue:
        """Return the catalogue of the project's kernels and the user's."""
        return catalogue.load(self._project, self.file)

    def add(
        self,
        name: str,
        patches: Sequence[Path] = (),
        on: str | Path = "",
        config: Path | None = None,
        about: str = "",
    ) -> None:
        """Add a kernel: another kernel or a source tree, with patches on it.

        Parameters
        ----------
        name : str
            The name of the new kernel.
        patches : sequence of Path
            Patch files, in the order in which they apply. They are copied.
        on : str or Path
            The name of another kernel, or the path of a tree (a folder or a tarball). A tree is read again whenever
            the kernel is used, and is never written to.
        config : Path, optional
            A fragment of a .config. It is copied.
        about : str
            A description for lists of kernels.

        Raises
        ------
        UsageError
            There is no patch, fragment or tree to add, or `name` cannot be the name of a kernel.
        UnknownKernel, SourceError, PatchError, KernelError
            The kernel cannot be built from this. Nothing is added.
        """
        if not patches and config is None and isinstance(on, str):
            raise UsageError(f"{name}: give a patch or a config fragment, else it is {on} itself")
        self._free(name, self.load())
        fragment = None if config is None else _fragment(config, name)
        numbered = {}
        for number, path in enumerate(patches, 1):
            text = _content(path, name)
            touched_paths(path, name, text)
            title = re.sub(r"^[0-9]{4}-", "", path.name.removesuffix(".patch"))
            numbered[f"{number:04}-{title[:_LONGEST_FILE_NAME]}.patch"] = text
        more = ", ".join(path.name for path in (*patches, *((config,) if config else ())))
        about = about or (f"{on} with {more}" if more else str(on))
        self._add(name, numbered, on, about, fragment)

    def am(self, mail: Path, on: str, name: str, *, allow_unplaced: bool = False) -> Port:
        """Add a kernel: another kernel with the patches in a mail. Return what became of each patch and hunk.

        Parameters
        ----------
        mail : Path
            A mail, an mbox or a page of an archive.
        on : str
            The name of the other kernel.
        name : str
            The name of the new kernel.
        allow_unplaced : bool
            Whether to leave out hunks that have no place in the source.

        Raises
        ------
        UnknownKernel, PatchError, KernelError
            The mail has no patch for this kernel, or a hunk has no place and `allow_unplaced` is false. Nothing is
            added.
        """
        kernels = self.load()
        self._free(name, kernels)
        data = _content(mail, name)
        supply = self._supply(kernels)
        entry = supply.built(on, "to patch")
        made = patches_of(data, str(mail), lambda paths: supply.sources.read(entry, paths))
        unplaced = sum(patch.unplaced for patch in made.patches)
        if unplaced and not allow_unplaced:
            hunks = sum(len(patch.reports) for patch in made.patches)
            raise PatchError(
                f"{made}\n{unplaced} of {hunks} hunks of {mail} have no place in {on}; {name} was not added. "
                "Choose the kernel it was made for with --on, or leave these hunks out with --allow-unplaced",
                kernel=name,
                patch=str(mail),
            )
        title, more = made.patches[0].title or mail.name, len(made.patches) - 1
        about = f"{on} with {title}" + (f" and {more} more" if more else "")
        self._add(name, {patch.name: patch.text for patch in made.patches}, on, about, None)
        return made

    def remove(self, name: str) -> bool:
        """Remove a kernel that the user added, its patches and the copy of its tree.

        Builds of it stay in the cache.

        Returns
        -------
        bool
            False if the user added no kernel of this name.

        Raises
        ------
        KernelError
            Another kernel is based on it.
        """
        with self._locked():
            text = self._read()
            section = _section(text, name)
            if section is None:
                return False
            above = [entry.name for entry in self.load() if isinstance(entry, Built) and entry.on == name]
            if above:
                raise KernelError(
                    f"{name} was not removed: {', '.join(above)} are based on it: remove these first", kernel=name
                )
            entry = self.load()[name]
            write_atomically(self.file, (text[: section[0]] + text[section[1] :]).encode())
            discard(self._patches(name))
            if isinstance(entry, Built):
                self._supply(self.load()).forget_tree(entry.source)
        return True

    def has(self, name: str) -> bool:
        """Return whether the user added a kernel of this name."""
        return _section(self._read(), name) is not None

    def _add(self, name: str, patches: dict[str, bytes], on: str | Path, about: str, config: bytes | None) -> None:
        with self._locked():
            kernels = self.load()
            self._free(name, kernels)
            if isinstance(on, str):
                kernels[on]
            before = self._read()
            folder = self._patches(name)
            entry = {"about": about}
            entry |= {"on": on} if isinstance(on, str) else {"tree": str(on.expanduser().resolve())}
            if any(0xD800 <= ord(letter) < 0xE000 for value in entry.values() for letter in value):
                raise UsageError(f"{name}: {on!a}: a path in {self.file.name} must be UTF-8; give it by a link")
            lines = [f"{key} = {_quoted(value)}" for key, value in entry.items()]
            where = folder.relative_to(self.folder)
            if patches:
                lines.append(f"patches = [{_quoted(str(where))}]")
            if config is not None:
                lines.append(f"config = [{_quoted(str(where / 'fragment.config'))}]")
            version = re.sub(r"[^a-z0-9.]+", "-", name.lower())[:_LONGEST_VERSION].strip("-.")
            lines.append(f"localversion = {_quoted('-' + version)}")
            table = f"[kernel.{_quoted(name)}]\n" + "\n".join(lines) + "\n"
            text = (f"{before.rstrip()}\n\n" if before else "") + table
            added = None
            tried = self.folder / ".adding.toml"  # the new list; if we are killed, the old one is unchanged
            try:
                discard(folder)
                folder.mkdir(parents=True)
                for file_name, content in patches.items():
                    (folder / file_name).write_bytes(content)
                if config is not None:
                    (folder / "fragment.config").write_bytes(config)
                write_atomically(tried, text.encode())
                added = catalogue.load(self._project, tried)
                supply = self._supply(added)
                supply.sources.read(supply.built(name, "to patch"), ())  # checks that the patches apply
                tried.rename(self.file)
            except BaseException:
                discard(folder)
                if added is not None and isinstance(made_of := added[name], Built):
                    self._supply(self.load()).forget_tree(made_of.source)
                raise
            finally:
                tried.unlink(missing_ok=True)

    def _free(self, name: str, kernels: Catalogue) -> None:
        if why := catalogue.bad_name(name):
            raise UsageError(f"{name!r} cannot be added: {why}")
        if name in kernels:
            raise KernelError(
                f"there is a kernel {name} already: choose another name"
                + (f", or `uffdlab kernel remove {name}` first" if self.has(name) else ""),
                kernel=name,
            )

    def _patches(self, name: str) -> Path:
        return self.folder / "patches" / slug(name)

    def _read(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked_file(self.folder / ".lock", "the list of your kernels", self._deadline):
                yield
        except OSError as error:
            if isinstance(error, KernelError):
                raise
            raise KernelError(
                f"{error.filename or self.folder} cannot be written ({error.strerror}): point UFFDLAB_KERNELS at a "
                "folder that you can write to, on a disk that is not full"
            ) from error


def _content(path: Path, kernel: str) -> bytes:
    # Read once: it may be a pipe.
    try:
        with path.open("rb") as file:
            data = file.read(SIZE + 1)
    except OSError as error:
        raise PatchError(f"{kernel}: {path}: {error.strerror}: give a file", kernel=kernel, patch=str(path)) from error
    if len(data) > SIZE:
        raise PatchError(f"{kernel}: {path} has more than {SIZE} bytes", kernel=kernel, patch=str(path))
    return data


def _fragment(path: Path, kernel: str) -> bytes:
    data = _content(path, kernel)
    text = data.decode(errors="replace")
    if odd := no_options(text):
        raise KernelError(
            f"{kernel}: {path} is not a fragment of a .config: give a file of lines like CONFIG_X=y and "
            f"# CONFIG_X is not set. Other lines are: {'; '.join(odd[:3])}",
            kernel=kernel,
        )
    if lost := turned_off(text):
        raise KernelError(
            f"{kernel}: {path} does not build in {', '.join(lost)}, which the lab needs: remove the line",
            kernel=kernel,
        )
    return data


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, except for DEL and for escaped characters above 0xffff.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _section(text: str, name: str) -> tuple[int, int] | None:
    # Returns the start and end of an entry in the file, from its header to the next header.
    head = re.search(rf'^\[kernel\.(?:"{re.escape(name)}"|{re.escape(name)})\]', text, re.MULTILINE)
    if head is None:
        return None
    after = re.search(r"^\[", text[head.end() :], re.MULTILINE)
    return head.start(), head.end() + after.start() if after else len(text)
