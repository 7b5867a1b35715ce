"""The commands that run something in a guest: a program, the kernel's own tests."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from uffdlab.errors import ProgramError, UffdlabError, UnknownKernel, UsageError
from uffdlab.programs import DEADLINE

_NO_KERNEL = 125  # it could not be built or booted
_FAILED = 1  # the kernel died of it, or the lab cannot say
# As a shell, env(1) and timeout(1) have it.
_STATUS = {"no-program": 127, "not-executable": 126, "program-late": 124}


@click.command("exec")
@click.argument("kernel")
@click.argument("command", nargs=-1, required=True)
@click.option(
    "--push",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Put this file beside the program; may be the program. An executable brings its libraries.",
)
@click.option(
    "--deadline", type=click.FloatRange(0, min_open=True), default=DEADLINE, show_default=True, help="Seconds."
)
@click.option("--memory", type=int, default=1024, show_default=True, help="The guest's memory in MiB.")
@click.option("--cpus", type=int, default=1, show_default=True, help="The guest's CPUs.")
def execute(
    kernel: str, command: tuple[str, ...], push: tuple[Path, ...], deadline: float, memory: int, cpus: int
) -> None:
    """Run COMMAND in a fresh guest of KERNEL: uffdlab exec KERNEL -- COMMAND.

    Its output comes as it is written. Exit status: that of the program, 128 + n if signal n ended it; 124 past its
    deadline, 126 if it is no program for the guest, 127 if there is none, 125 if the kernel could not be built or
    booted, 1 if the kernel died of it.
    """
    from uffdlab.lab import Lab  # noqa: PLC0415 - so that `uffdlab --help` needs no QEMU client

    try:
        lab = Lab(kernel, memory_mib=memory, cpus=cpus)
    except (UnknownKernel, UsageError) as error:
        raise click.UsageError(str(error)) from error
    except UffdlabError as error:
        click.echo(f"{kernel}: {error}", err=True)
        sys.exit(_NO_KERNEL)
    with lab:
        try:
            status = lab.exec(command, push=push, deadline=deadline, on_output=_show).status
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except ProgramError as error:
            click.echo("\n".join([f"{kernel}: {error}", *getattr(error, "__notes__", ())]), err=True)
            status = _STATUS.get(error.kind, _FAILED)
        except UffdlabError as error:
            click.echo(f"{kernel}: {error}", err=True)
            status = _FAILED
    sys.exit(status)


def _show(stream: str, data: bytes) -> None:
    out = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
    out.write(data)
    out.flush()
