"""``uffdlab demo``: one experiment on four real kernels, and the notebook, with the results as files.

``make demo`` runs it.
"""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uffdlab.cli import exit_status, notebook
from uffdlab.cli.output_file import make_folder
from uffdlab.data_folders import data_folder, installed

if TYPE_CHECKING:
    from uffdlab.scenarios import Result

# The packaged ones first: they are there after seconds, the others are compiled.
KERNELS = ("debian/trixie", "debian/bookworm", "6.1-series", "6.1-as-posted")
WHAT_IT_IS = {
    "debian/trixie": "upstream, which has it since 6.4",
    "debian/bookworm": "Linux 6.1 without the patch",
    "6.1-series": "6.1 with our series",
    "6.1-as-posted": "6.1 with the patch of February 2023",
}


def must_fail(kernel: str, check_name: str) -> bool:
    """Return whether a check must fail on this kernel: it does not know the flag, or has the patch with its defect.

    Without the flag every CONTINUE with WP fails with EINVAL, so no check that depends on it can hold.  The patch as
    posted silently drops WP together with DONTWAKE, for CONTINUE and for COPY, and also the check of the registration.
    """
    if kernel == "6.1-as-posted":
        return check_name.split(": ", 1)[1] in _LOST_AS_POSTED
    if kernel in ("debian/bookworm", "6.1-base"):
        return check_name.split(": ", 1)[1] in _UNKNOWN_FLAG
    return False


_LOST_AS_POSTED = {
    "pages 0–1 after CONTINUE|DONTWAKE|WP",
    "CONTINUE|DONTWAKE|WP not registered for WP",
    "page 1 after that",
    "page 3 after COPY|DONTWAKE|WP",
}
_UNKNOWN_FLAG = {
    "CONTINUE|WP",
    "pages 0–31 after CONTINUE|WP",
    "pages 0–3 after CONTINUE|WP",
    "write to page 3",
    "CONTINUE|DONTWAKE|WP",
    "pages 0–1 after CONTINUE|DONTWAKE|WP",
}


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build/demo"), show_default=True)
@click.option("--notebook-path", type=click.Path(dir_okay=False, exists=True, path_type=Path),
              default=data_folder("notebooks") / "minor_wp.ipynb", show_default="the minor_wp.ipynb that comes along",
)  # fmt: skip
def demo(out: Path, notebook_path: Path) -> None:
    """Show on four kernels what UFFDIO_CONTINUE with WP does, and run the notebook.

    Prints a line for each group of pages, the pages before and after, and each check that fails. Writes a picture and
    a JSON file as soon as a kernel has run, then minor_wp.html, the notebook as executed, and minor_wp.png. Exit
    status: 0 every check has the result that is right for its kernel, 1 one has not, 125 a kernel could not be built
    or booted, 130 after Ctrl-C.
    """
    from uffdlab import figures
    from uffdlab.lab import Lab
    from uffdlab.scenarios import minor_wp, reports

    make_folder(out, "--out")
    wrong: list[str] = []
    started = time.monotonic()
    try:
        # make starts this with SIGINT blocked, so that Ctrl-C during the imports takes effect here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for kernel in KERNELS:
            with exit_status.from_errors("demo"), Lab(kernel) as lab:
                result = minor_wp(lab)
            wrong += _report(result)
            path = out / f"{kernel.replace('/', '-')}.json"
            path.write_text(reports.to_json(result), encoding="utf-8")
            picture = figures.compare(result.snapshots["shmem before"], result.snapshots["shmem after"])
            picture.save(path.with_suffix(".png"))
            if kernel == "6.1-series":
                picture.save(out / "minor_wp.png")
            click.echo(f"  picture: {path.with_suffix('.png')}, after {time.monotonic() - started:.0f} s")
        click.echo(f"\nThe experiment on {len(KERNELS)} kernels took {time.monotonic() - started:.0f} s.")
        with exit_status.from_errors("demo", booted=True):
            notebook.execute(notebook_path, out / "minor_wp.html", report=click.echo)
    except KeyboardInterrupt:
        click.echo("\ndemo: stopped; run it again, it keeps the kernels that are already built", err=True)
        sys.exit(exit_status.INTERRUPTED)
    click.echo(f"\nWritten: {out / 'minor_wp.html'} (the notebook as it ran), {out / 'minor_wp.png'}")
    command = "uffdlab lab" if installed() else "make lab"
    click.echo(f"Continue by hand: {command}    (opens JupyterLab on a copy of minor_wp.ipynb)")
    if wrong:
        click.echo(f"\n{len(wrong)} checks have the wrong result:", err=True)
        for line in wrong:
            click.echo(f"  {line}", err=True)
        sys.exit(exit_status.FAILED)
    click.echo("Every check has the right result.")


def _report(result: Result) -> list[str]:
    # Prints the results on one kernel; returns a line for each check with the wrong result.
    from uffdlab.cli import page_letters

    click.echo(
        f"\n{result.kernel}: {WHAT_IT_IS[result.kernel]} (Linux {result.release}), by the {result.witness} witness"
    )
    for group in result.groups:
        click.echo(f"  {group.memory:<8} pages {group.pages:<6} {group.done:<12} {group.before} → {group.after}")
    letters = page_letters.side_by_side(result.snapshots["shmem before"], result.snapshots["shmem after"])
    click.echo(f"\n{textwrap.indent(letters, '  ')}\n")
    wrong = []
    for check in result.checks:
        fails = must_fail(result.kernel, check.name)
        if fails and not check.ok:
            click.echo(f"  ! {check.name}: {check.observed} (with a correct flag: {check.expected})")
        elif fails == check.ok:
            wrong.append(f"{result.kernel}: {check.name}: expected «{check.expected}», observed «{check.observed}»"
                         + (" — and it must fail on this kernel" if fails else ""))  # fmt: skip
    good = sum(check.ok for check in result.checks)
    click.echo(f"  {good} of {len(result.checks)} checks hold" + ("" if wrong else ", as they must on this kernel"))
    return wrong
