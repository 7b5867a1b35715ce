"""The commands with which one's own patch becomes a kernel under test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uffdlab.errors import UffdlabError, UnknownKernel, UsageError

if TYPE_CHECKING:
    from uffdlab.scenarios.continue_timing import Timing

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TREE = click.Path(exists=True, path_type=Path)
_STDIN = Path("/dev/stdin")
_FAILED = 125  # as for every kernel that cannot be had


@click.command("am")
@click.argument("mail", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--on", required=True, help="The kernel to put it on, one that is built here.")
@click.option("--as", "name", required=True, help="The new kernel's name.")
@click.option("--allow-unplaced", is_flag=True, help="Go on without the hunks that have no place.")
def am(mail: Path, on: str, name: str, allow_unplaced: bool) -> None:
    """Make a kernel of the patches in MAIL: a mail, an mbox, or a page copied from an archive; - is standard input.

    They are tried as they are. Where they are quoted, have lost their white space, or were made for another tree, each
    hunk is fitted by what it says; the list tells which were placed, which guessed, and which have no place.
    """
    from uffdlab.kernels.user_kernels import UserKernels  # noqa: PLC0415 - so that `uffdlab --help` is fast

    try:
        made = UserKernels().am(_STDIN if str(mail) == "-" else mail, on, name, allow_unplaced=allow_unplaced)
    except UffdlabError as error:
        _fail(error)
    click.echo(str(made))
    click.echo(f"{name} is a kernel now: `uffdlab kernel build {name}`")


@click.command("add")
@click.argument("name")
@click.option("--patch", "patches", type=_FILE, multiple=True, help="A patch; several apply in this order.")
@click.option("--on", help="The kernel to put the patches on, one that is built here.")
@click.option("--tree", type=_TREE, help="Or a kernel source of yours: a folder, in git or clean, or a tarball.")
@click.option("--config", type=_FILE, help="A .config fragment, applied after the lab's own.")
@click.option("--about", default="", help="A line for `uffdlab kernel list`.")
def add(
    name: str, patches: tuple[Path, ...], on: str | None, tree: Path | None, config: Path | None, about: str
) -> None:
    """Add kernel NAME: another one with patches, or with a config fragment, or one made from a source tree of yours.

    Patches and the fragment are copied. The tree is read again whenever the kernel is asked for, so that an edit there
    is in the next build, and it is never written.
    """
    base = on or tree
    if base is None or (on and tree):
        raise click.UsageError("give either --on KERNEL or --tree FOLDER")
    from uffdlab.kernels.user_kernels import UserKernels  # noqa: PLC0415 - so that `uffdlab --help` is fast

    try:
        UserKernels().add(name, patches, base, config, about)
    except UffdlabError as error:
        _fail(error)
    click.echo(f"{name} is a kernel now: `uffdlab kernel build {name}`")


@click.command("size")
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--time", "timed", is_flag=True, help="Boot both and time UFFDIO_CONTINUE on them, taking turns.")
def size(a: str, b: str, as_json: bool, timed: bool) -> None:
    """Compare the code of kernels A and B, object by object and function by function, the largest difference first.

    Both must be built here. Text is what size(1) counts: code and constants.
    """
    from uffdlab.kernels import Supply, code_size  # noqa: PLC0415 - so that `uffdlab --help` is fast

    try:
        found = code_size.compare(*Supply().sizes(a, b))
        timings = _times(a, b) if timed else ()
    except UffdlabError as error:
        _fail(error)
    if as_json:
        times = [{"way": timing.way, "ns_a_page": timing.fastest, "ratio": timing.ratios[1]} for timing in timings]
        click.echo(json.dumps({**found.as_data(), "times": times}, indent=1))
        return
    click.echo(str(found))
    if timings:
        click.echo("\n" + "\n".join(map(str, timings)))


def _times(a: str, b: str) -> tuple[Timing, ...]:
    from uffdlab.scenarios.continue_timing import time_continue  # noqa: PLC0415 - so that `uffdlab --help` needs no QEMU client

    return time_continue((a, b))


def _fail(error: UffdlabError) -> None:
    if isinstance(error, UnknownKernel | UsageError):
        raise click.UsageError(str(error)) from error
    click.echo(str(error), err=True)
    sys.exit(_FAILED)
