"""The command line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from uffdlab import kernels
from uffdlab.cli import guest, vagrant
from uffdlab.cli import kernel as workbench
from uffdlab.cli.interruptible import InterruptibleGroup
from uffdlab.errors import HostUnsupported, KernelError, MachineError, UffdlabError, UnknownKernel, UsageError
from uffdlab.scenarios import SCENARIOS
from uffdlab.scenarios.reports import FORMS
from uffdlab.target.capabilities import FORMS as CAPABILITY_FORMS

NO_KERNEL = 125  # what `git bisect run` takes for "this revision cannot be tested"


@click.group(cls=InterruptibleGroup)
@click.version_option(package_name="uffdlab")
def main() -> None:
    """A lab bench for userfaultfd: choose a kernel, touch a page, see its page-table entry change."""


@main.command()
@click.argument("scenario", type=click.Choice(list(SCENARIOS)))
@click.argument("kernel", nargs=-1, required=True)
@click.option("--form", type=click.Choice(list(FORMS)), default="text", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there instead of the terminal.")
def run(scenario: str, kernel: tuple[str, ...], form: str, output: Path | None) -> None:
    """Run SCENARIO on each KERNEL (a name or a path).

    Exit status: 0 all checks hold, 1 one does not, 2 bad usage, 125 a kernel could not be built or booted (so it serves
    `git bisect run`).
    """
    from uffdlab.lab import Lab  # noqa: PLC0415 - so that `uffdlab --help` needs no QEMU client

    if output and not output.parent.is_dir():
        raise click.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    texts = []
    good = True
    for name in kernel:
        try:
            with Lab(name) as lab:
                result = SCENARIOS[scenario](lab)
        except (UnknownKernel, UsageError) as error:
            raise click.UsageError(str(error)) from error
        except (KernelError, MachineError, HostUnsupported) as error:
            said = str(error)
            click.echo(said if said.startswith(f"{name}: ") else f"{name}: {said}", err=True)
            sys.exit(NO_KERNEL)
        except UffdlabError as error:
            click.echo(f"{name}: {error}", err=True)
            sys.exit(1)
        good = good and result.ok
        texts.append(FORMS[form](result))
    text = "\n".join(texts) if form != "json" or len(texts) == 1 else "[" + ",\n".join(texts) + "]"
    if output:
        output.write_text(text + "\n", encoding="utf-8")
    else:
        click.echo(text)
    sys.exit(0 if good else 1)


@main.command("capabilities")
@click.argument("kernel", nargs=-1, required=True)
@click.option("--form", type=click.Choice(list(CAPABILITY_FORMS)), default="text", show_default=True)
def capabilities(kernel: tuple[str, ...], form: str) -> None:
    """Show what each KERNEL can do with a userfaultfd, side by side, found by trying."""
    from uffdlab.lab import Lab  # noqa: PLC0415 - so that `uffdlab --help` needs no QEMU client

    found = []
    with _kernel_errors():
        for name in kernel:
            with Lab(name) as lab:
                found.append(lab.capabilities)
    click.echo(CAPABILITY_FORMS[form](found))


@main.group()
def kernel() -> None:
    """The kernels under test."""


@kernel.command("list")
def kernel_list() -> None:
    """List every kernel of the catalogue and whether it is there."""
    for row in kernels.Supply().available():
        state = row.kernel.release if row.kernel else "not there yet"
        click.echo(f"{row.name:<24} {state:<28} {row.about}")


@kernel.command("build")
@click.argument("name", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every kernel of the catalogue.")
@click.option("--refresh", is_flag=True, help="Ask the mirror again for the newest version of the source.")
def kernel_build(name: tuple[str, ...], everything: bool, refresh: bool) -> None:
    """Fetch or build kernels, so that a Lab starts at once."""
    names = [row.name for row in kernels.Supply().available()] if everything else list(name)
    if not names:
        raise click.UsageError("name a kernel, or --all; `uffdlab kernel list` lists them")
    for each in names:
        with _kernel_errors():
            found = kernels.get(each, refresh=refresh)
        click.echo(f"{found.name}: Linux {found.release}, {found.image}")


@kernel.command("path")
@click.argument("name")
def kernel_path(name: str) -> None:
    """Print where the image of a kernel is; fetches or builds it if it is not there."""
    with _kernel_errors():
        click.echo(kernels.get(name).image)


@kernel.command("log")
@click.argument("name")
def kernel_log(name: str) -> None:
    """Print the log of a kernel's build."""
    with _kernel_errors():
        log = kernels.Supply().log(name)
        if log is None:
            raise KernelError(
                f"{name} has no build log: it has not been built here, or comes as a package", kernel=name
            )
        click.echo(log.read_text(encoding="utf-8", errors="replace"), nl=False)


@kernel.command("remove")
@click.argument("name", nargs=-1, required=True)
def kernel_remove(name: tuple[str, ...]) -> None:
    """Remove kernels from the cache, and those that `kernel add` and `kernel am` made from the list too."""
    from uffdlab.kernels.user_kernels import UserKernels  # noqa: PLC0415 - so that `uffdlab --help` is fast

    for each in name:
        with _kernel_errors():
            supply = kernels.Supply()
            entry = " and the list" if UserKernels().remove(each) else ""
            freed = supply.remove(each)
            click.echo(f"{each}: {freed} bytes removed from the cache{entry}")


main.add_command(guest.execute)
main.add_command(guest.selftest)
main.add_command(vagrant.vagrant)
kernel.add_command(workbench.am)
kernel.add_command(workbench.add)
kernel.add_command(workbench.size)


@contextlib.contextmanager
def _kernel_errors() -> Iterator[None]:
    try:
        yield
    except UnknownKernel as error:
        raise click.UsageError(str(error)) from error
    except UffdlabError as error:
        click.echo(str(error), err=True)
        sys.exit(NO_KERNEL)
