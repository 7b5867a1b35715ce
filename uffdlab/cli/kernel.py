"""``uffdlab kernel``: the kernels under test, and new ones from your own patches."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click

from uffdlab import kernels
from uffdlab.cli import exit_status
from uffdlab.cli.parameters import KernelName, as_json
from uffdlab.errors import KernelError, UnknownKernel

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TREE = click.Path(exists=True, path_type=Path)
_STDIN = Path("/dev/stdin")


@click.group()
def kernel() -> None:
    """The kernels under test: list, build, add, compare."""


@kernel.command("list")
@as_json
def kernel_list(as_json: bool) -> None:
    """List every kernel, and whether it is in the cache or the shared store."""
    with exit_status.from_errors():
        rows = kernels.Supply().available()
    if as_json:
        click.echo(json.dumps([_as_data(row) for row in rows], indent=1))
        return
    for row in rows:
        state = row.kernel.release if row.kernel else "not there yet"
        if row.origin:
            state += f" ({row.origin})"
        click.echo(f"{row.name:<24} {state:<28} {row.about}")


def _as_data(row: kernels.Listed) -> dict[str, object]:
    made = row.kernel
    return {
        "name": row.name,
        "about": row.about,
        "release": made.release if made else None,
        "image": str(made.image) if made else None,
        "origin": row.origin or None,
    }


@kernel.command("build", epilog="Example: uffdlab kernel build 6.1-series debian/trixie")
@click.argument("name", type=KernelName(path=True), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every kernel of the catalogue.")
@click.option("--refresh", is_flag=True, help="Ask the mirror again for the newest version of the source.")
def kernel_build(name: tuple[str, ...], everything: bool, refresh: bool) -> None:
    """Fetch or build kernels, so that a Lab starts without delay."""
    names = [row.name for row in kernels.Supply().available()] if everything else list(name)
    if not names:
        raise click.UsageError("name a kernel, or --all; `uffdlab kernel list` lists them")
    for each in names:
        with exit_status.from_errors():
            found = kernels.get(each, refresh=refresh)
        click.echo(f"{found.name}: Linux {found.release}, {found.image}")


@kernel.command("path")
@click.argument("name", type=KernelName(path=True))
def kernel_path(name: str) -> None:
    """Print the path of a kernel's image; fetch or build it if it is not in the cache."""
    with exit_status.from_errors():
        click.echo(kernels.get(name).image)


@kernel.command("log")
@click.argument("name", type=KernelName())
def kernel_log(name: str) -> None:
    """Print the log of a kernel's build."""
    with exit_status.from_errors():
        log = kernels.Supply().log(name)
        if log is None:
            raise KernelError(
                f"{name} has no build log: it has not been built here, or comes as a package", kernel=name
            )
        click.echo(log.read_text(encoding="utf-8", errors="replace"), nl=False)


@kernel.command("remove")
@click.argument("name", type=KernelName(), nargs=-1, required=True)
def kernel_remove(name: tuple[str, ...]) -> None:
    """Remove kernels from the cache; those made by `kernel add` and `kernel am` also from the list."""
    from uffdlab.kernels.user_kernels import UserKernels

    for each in name:
        with exit_status.from_errors():
            supply = kernels.Supply()
            entry = " and the list" if UserKernels().remove(each) else ""
            freed = supply.remove(each)
            click.echo(f"{each}: {freed} bytes removed from the cache{entry}")
            with contextlib.suppress(UnknownKernel):  # it was in no catalogue
                if not entry and (left := supply.find(each)):
                    click.echo(f"{each}: the shared kernel stays, {left.image.parent}")


@kernel.command("share", epilog="Example: uffdlab kernel share /srv/uffdlab/kernels debian/trixie 6.1-series")
@click.argument("store", type=click.Path(file_okay=False, path_type=Path))
@click.argument("name", type=KernelName(), nargs=-1, required=True)
@click.option("--refresh", is_flag=True, help="Ask the mirror again for the newest version of the source.")
def share(store: Path, name: tuple[str, ...], refresh: bool) -> None:
    """Put kernels into the folder STORE, where other users read them: UFFDLAB_IMAGES=STORE.

    Fetches or builds what is not in the cache. Everybody can read the kernels, whatever the umask. An older version of
    a kernel stays there for labs that use it.
    """
    from uffdlab.kernels import shared_store

    store = store.expanduser().absolute()
    for each in name:
        with exit_status.from_errors(each):
            copy = shared_store.share(kernels.Supply().finished(each, refresh=refresh), store)
        click.echo(f"{copy.name}: Linux {copy.release}, {copy.image}")
    if closed := shared_store.closed_folder(store):
        click.echo(f"Other users cannot enter {closed}: chmod o+x {closed}, or change its group.", err=True)
    click.echo(f"Everybody who uses them sets UFFDLAB_IMAGES={store}")


@kernel.command("export", epilog="Example: uffdlab kernel export kernels.tar.zst debian/trixie 6.1-series")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("name", type=KernelName(), nargs=-1, required=True)
def export(file: Path, name: tuple[str, ...]) -> None:
    """Write kernels into FILE, for a host without a network: `uffdlab kernel import FILE` there.

    Fetches or builds what is not in the cache. Prints the SHA-256 of FILE.
    """
    from uffdlab.kernels import bundle, progress

    with exit_status.from_errors("export"):
        found = [kernels.Supply().finished(each) for each in dict.fromkeys(name)]
        with progress.shown(str(file), "exporting") as bar:
            digest = bundle.write(file, found, bar)
    click.echo(f"{digest}  {file}")


@kernel.command("import", epilog="Example: uffdlab kernel import kernels.tar.zst")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sha256", default="", help="Import nothing if FILE has another SHA-256.")
def import_(file: Path, sha256: str) -> None:
    """Take the kernels in FILE into the cache; FILE is from `uffdlab kernel export`.

    Every file in it is compared with its hash. A damaged FILE imports nothing. Needs neither a network nor apt.
    """
    from uffdlab.kernels import bundle, catalogue, progress

    with exit_status.from_errors("import"), progress.shown(str(file), "importing") as bar:
        found = bundle.read(file, kernels.Cache(), catalogue.load(), bar, sha256)
    for each in found:
        click.echo(f"{each.name}: Linux {each.release}, {each.image}")


@kernel.command("am", epilog="Example: uffdlab kernel am mail.txt --on 6.1-base --as reviewed")
@click.argument("mail", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--on", type=KernelName(), required=True, help="The kernel to apply it to, one that is built here.")
@click.option("--as", "name", required=True, help="The new kernel's name.")
@click.option("--allow-unplaced", is_flag=True, help="Continue without the hunks that cannot be placed.")
def am(mail: Path, on: str, name: str, allow_unplaced: bool) -> None:
    """Make a kernel of the patches in MAIL: a mail, an mbox, or a page copied from an archive; - is standard input.

    The patches are first applied as they are. If they are quoted, have lost white space, or were made for another tree,
    each hunk is placed by its content. The list shows which hunks were placed, which were guessed, and which were not
    placed.
    """
    from uffdlab.kernels.user_kernels import UserKernels

    with exit_status.from_errors():
        made = UserKernels().am(_STDIN if str(mail) == "-" else mail, on, name, allow_unplaced=allow_unplaced)
    click.echo(str(made))
    click.echo(f"{name} is a kernel now: `uffdlab kernel build {name}`")


@kernel.command("add", epilog="Examples: uffdlab kernel add mine --on 6.1-series --patch fix.patch; "
                "uffdlab kernel add mine --tree ~/linux")  # fmt: skip
@click.argument("name")
@click.option("--patch", "patches", type=_FILE, multiple=True, help="A patch; several apply in this order.")
@click.option("--on", type=KernelName(), help="The kernel to apply the patches to, one that is built here.")
@click.option("--tree", type=_TREE, help="Or your own kernel source: a folder, in git or clean, or a tarball.")
@click.option("--config", type=_FILE, help="A .config fragment, applied after the lab's own.")
@click.option("--about", default="", help="A line for `uffdlab kernel list`.")
def add(
    name: str, patches: tuple[Path, ...], on: str | None, tree: Path | None, config: Path | None, about: str
) -> None:
    """Add kernel NAME: a known kernel with patches or a config fragment, or one made from your own source tree.

    Patches and the fragment are copied. The tree is read again whenever the kernel is used, so the next build has your
    latest edits. The tree is never written to.
    """
    from uffdlab.kernels.user_kernels import UserKernels

    base = on or tree
    if base is None or (on and tree):
        raise click.UsageError("give either --on KERNEL or --tree FOLDER")
    with exit_status.from_errors():
        UserKernels().add(name, patches, base, config, about)
    click.echo(f"{name} is a kernel now: `uffdlab kernel build {name}`")


@kernel.command("size", epilog="Example: uffdlab kernel size 6.1-base 6.1-series")
@click.argument("a", type=KernelName())
@click.argument("b", type=KernelName())
@as_json
@click.option("--time", "timed", is_flag=True, help="Boot both and time UFFDIO_CONTINUE on them, alternating.")
def size(a: str, b: str, as_json: bool, timed: bool) -> None:
    """Compare the code of kernels A and B, object by object and function by function, the largest difference first.

    Both must be built here. Text is that of size(1): code and constants.
    """
    from uffdlab.kernels import code_size
    from uffdlab.scenarios.continue_timing import time_continue

    with exit_status.from_errors():
        found = code_size.compare(*kernels.Supply().sizes(a, b))
        timings = time_continue((a, b)) if timed else ()
    if as_json:
        times = [{"way": timing.way, "ns_a_page": timing.fastest, "ratio": timing.ratios[1]} for timing in timings]
        click.echo(json.dumps({**found.as_data(), "times": times}, indent=1))
        return
    click.echo(str(found))
    if timings:
        click.echo("\n" + "\n".join(map(str, timings)))
