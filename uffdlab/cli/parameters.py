"""What several commands take: kernels, machines and scenarios, each of which a shell can complete; ``--json``.

A shell waits for this module and those of the commands, so nothing here imports more than it needs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from uffdlab.errors import UffdlabError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The experiments of :mod:`uffdlab.scenarios`, which takes long to import.
SCENARIOS = ("minor_wp",)
_MACHINES = {
    "qemu": "a guest in QEMU, the default",
    "local": "the running kernel of this host",
    "ssh:": "ssh:user@host, any Linux that ssh reaches",
    "vagrant": "a whole Debian in Vagrant",
}
_PATH = ("/", "./", "../", "~")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")


class _Name(click.ParamType):  # type: ignore[type-arg]  # click 8.1 to 8.4 has it without one
    # Any text; a shell completes those in names().
    def names(self) -> Iterable[tuple[str, str]]:
        """Return each name that can be completed, and what it is."""
        raise NotImplementedError

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        """Return the names that begin with `incomplete`; see :meth:`click.ParamType.shell_complete`."""
        del ctx, param
        return [CompletionItem(name, help=about) for name, about in self.names() if name.startswith(incomplete)]


class KernelName(_Name):
    """The name of a kernel, and the path of an image too if `path` is true."""

    name = "kernel"

    def __init__(self, *, path: bool = False) -> None:
        self._path = path

    def names(self) -> Iterable[tuple[str, str]]:
        """Return the kernels of the catalogue and those from elsewhere; none if the catalogue cannot be read."""
        from uffdlab.kernels import catalogue
        from uffdlab.kernels.cache import Cache
        from uffdlab.kernels.names import names

        with contextlib.suppress(UffdlabError):
            return names(catalogue.load(), Cache()).items()
        return []

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        """Return kernels, or let the shell complete a path."""
        found = [] if incomplete.startswith(_PATH) else super().shell_complete(ctx, param, incomplete)
        return found or ([CompletionItem(incomplete, type="file")] if self._path else [])


class MachineName(_Name):
    """A kind of machine, as ``Lab(machine=…)`` takes it."""

    name = "machine"

    def names(self) -> Iterable[tuple[str, str]]:
        """Return every kind of machine."""
        return _MACHINES.items()
