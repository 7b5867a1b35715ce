"""The commands that run something in a guest: a program, the kernel's own tests."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from uffdlab.cli import exit_status
from uffdlab.cli.output_file import opened
from uffdlab.cli.parameters import KernelName
from uffdlab.errors import UffdlabError
from uffdlab.machines.programs import DEADLINE


class _Exec(click.Command):
    """Explains the missing `--` if an option of the program is taken for one of ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in given:
                raise
            plain = all(not argument.startswith("-") for argument in given[:2])
            kernel, command = (shlex.join(given[:1]), shlex.join(given[1:])) if plain else ("KERNEL", "COMMAND…")
            right = f"{ctx.command_path} {kernel} -- {command}"
            raise click.UsageError(
                f"{error.format_message()} If it is an option of the program, put -- before the program: {right}", ctx
            ) from None


# Here -h is most often the program's, as in `df -h`.
@click.command(
    "exec",
    cls=_Exec,
    context_settings={"help_option_names": ["--help"]},
    epilog="Examples: uffdlab exec 6.1-series -- uname -r; "
    "uffdlab exec debian/trixie --push ./my-test -- ./my-test --all; "
    "tar c tests | uffdlab exec 6.1-series --deadline 600 -- sh -c 'tar x && sh tests/all'",
)
@click.argument("kernel", type=KernelName(path=True))
@click.argument("command", nargs=-1, required=True)
@click.option(
    "--push",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Copy this file, which may be the program, into the program's folder. An executable brings its libraries.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    default=DEADLINE,
    show_default=True,
    metavar="SECONDS",
    help="The program is killed after these.",
)
@click.option(
    "--memory", type=click.IntRange(1), default=1024, show_default=True, metavar="MIB", help="The guest's memory."
)
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="The guest's CPUs.")
def execute(
    kernel: str, command: tuple[str, ...], push: tuple[Path, ...], deadline: float, memory: int, cpus: int
) -> None:
    """Run COMMAND in a fresh guest of KERNEL: uffdlab exec KERNEL -- COMMAND.

    The program gets standard input, and its output is printed as it arrives. In a shell's loop that reads lines, give
    it </dev/null, or it takes the lines.

    Exit status: that of the program, or 128 + n if signal n killed it; 124 if it
    missed its deadline, 126 if the guest cannot execute it, 127 if it does not exist, 125 if the kernel could not be
    built or booted, 1 if the kernel crashed.
    """
    from uffdlab.lab import Lab

    with exit_status.from_errors(kernel):
        lab = Lab(kernel, memory_mib=memory, cpus=cpus)
    with lab, exit_status.from_errors(kernel, booted=True):
        done = lab.exec(command, push=push, deadline=deadline, on_output=_show, stdin=_stdin())
    sys.exit(done.status)


def _stdin() -> BinaryIO | None:
    if sys.stdin is None:  # it is closed
        return None
    file = sys.stdin.buffer
    # A job in the background that reads from its terminal is stopped.
    if file.isatty() and os.tcgetpgrp(file.fileno()) != os.getpgrp():
        return None
    return getattr(file, "raw", file)  # without a lock, which a thread could hold when Python ends


def _show(stream: str, data: bytes) -> None:
    out = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
    out.write(data)
    out.flush()


@click.command("selftest", epilog="Example: uffdlab selftest 6.1-series --output selftest.ktap")
@click.argument("kernel", type=KernelName(path=True))
@click.option(
    "--tree",
    type=KernelName(path=True),
    help="Take the tests from this source tree, or from the source of this kernel in the catalogue.",
)
@click.option("--full", is_flag=True, help="Use the sizes of the kernel's run_vmtests.sh; slow under emulation.")
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    show_default="1800",
    metavar="SECONDS",
    help="For each program.",
)
@click.option("--cpus", type=click.IntRange(1), show_default="1", metavar="N", help="The guest's CPUs.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write the KTAP to this file.")
def selftest(
    kernel: str, tree: str | None, full: bool, deadline: float | None, cpus: int | None, output: Path | None
) -> None:
    """Compile the kernel's own userfaultfd tests and run them in a guest of KERNEL; prints KTAP.

    The tests come from KERNEL's own source: vm/userfaultfd, or mm/uffd-unit-tests and mm/uffd-stress. Exit status: 0
    success, 1 a test failed or the kernel crashed, 2 bad usage, 125 the kernel or its tests could not be built, or it
    did not boot.
    """
    from uffdlab.kernels import kselftest
    from uffdlab.lab import Lab
    from uffdlab.scenarios.kselftest import CPUS, MEMORY_MIB, ktap, plan, run
    from uffdlab.scenarios.kselftest import DEADLINE as SELFTEST_DEADLINE

    with ExitStack() as stack:
        file = stack.enter_context(opened(output)) if output else None

        def say(line: str) -> None:
            click.echo(line)
            if file:
                click.echo(line, file=file)

        hint = ". The tests come from a kernel in the catalogue or from --tree FOLDER"
        with exit_status.from_errors(kernel, hint=hint):
            folder = Path(tree) if tree else None
            tests = kselftest.of_tree(folder) if folder and folder.is_dir() else kselftest.of_kernel(tree or kernel)
            lab = stack.enter_context(Lab(kernel, memory_mib=MEMORY_MIB, cpus=cpus or CPUS))
        good = False
        calls = plan(tests, full=full)
        try:
            good = ktap(lab, tests, calls, run(lab, tests, calls, deadline=deadline or SELFTEST_DEADLINE), say)
        except UffdlabError as error:
            say(f"Bail out! {kernel}: " + str(error).replace("\n", "\n# "))
    sys.exit(0 if good else exit_status.FAILED)
