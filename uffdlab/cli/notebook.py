"""``uffdlab notebook``: run a notebook from beginning to end and write it as an HTML page with all its outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from uffdlab.cli import exit_status
from uffdlab.errors import UffdlabError

_CELL_DEADLINE = 600  # seconds; the kernels are built before, but a machine may be slow to answer


def execute(path: Path, html: Path, *, report: Callable[[str], object]) -> None:
    """Run the notebook at `path` in a fresh Python kernel and write it, as executed, to `html`.

    Parameters
    ----------
    path : Path
        The notebook; it is not changed.
    html : Path
        The path of the page to write.
    report : callable
        Called with the result, in one line.

    Raises
    ------
    UffdlabError
        A cell failed; the message has its traceback.  The page is still written.
    """
    started = time.monotonic()
    document = nbformat.read(path, as_version=4)
    client = NotebookClient(
        document,
        timeout=_CELL_DEADLINE,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # hide the warning that it listens on the loopback device
    )
    failure: CellExecutionError | None = None
    try:
        client.execute()
    except CellExecutionError as error:
        failure = error
    page, _ = HTMLExporter().from_notebook_node(document)
    html.write_text(page, encoding="utf-8")
    if failure is not None:
        raise UffdlabError(f"a cell of {path} failed; {html} shows all of them\n{failure}") from failure
    cells = sum(cell.cell_type == "code" for cell in document.cells)
    report(f"The notebook's {cells} code cells ran in {time.monotonic() - started:.0f} s.")


@click.command()
@click.argument("notebook", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.argument("page", type=click.Path(dir_okay=False, path_type=Path))
def notebook(notebook: Path, page: Path) -> None:
    """Run NOTEBOOK and write it, as executed, to PAGE; `UFFDLAB_MACHINE` selects where its lab runs."""
    with exit_status.from_errors():
        execute(notebook, page, report=click.echo)
    click.echo(f"Written: {page}")
