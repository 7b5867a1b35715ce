"""``uffdlab notebook`` runs a notebook and writes it as a page; ``uffdlab export`` writes one as it was saved."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uffdlab.cli import exit_status
from uffdlab.errors import UffdlabError

if TYPE_CHECKING:
    import nbformat

_WIDGET = "application/vnd.jupyter.widget-view+json"
_REMOTE = re.compile(r"<script[^>]*\ssrc=\"(?:https?:[^\"]*)?\"[^>]*>\s*</script>")  # nothing may be fetched
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
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    started = time.monotonic()
    document = nbformat.read(path, as_version=4)
    client = NotebookClient(
        document,
        timeout=_CELL_DEADLINE,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # hide the warning that it listens on the loopback device
    )
    failure: CellExecutionError | None = None
    try:
        client.execute()
    except CellExecutionError as error:
        failure = error
    html.write_text(_as_page(document), encoding="utf-8")
    if failure is not None:
        raise UffdlabError(f"a cell of {path} failed; {html} shows all of them\n{failure}") from failure
    cells = sum(cell.cell_type == "code" for cell in document.cells)
    report(f"The notebook's {cells} code cells ran in {time.monotonic() - started:.0f} s.")


def export_page(path: Path, page: Path) -> None:
    """Write the notebook at `path`, as it was saved, to `page`: one HTML file that needs no Python and no network.

    Live widgets are left out; the last state of each is in the notebook.

    Raises
    ------
    UffdlabError
        If the file is no notebook.
    """
    import nbformat

    try:
        document = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, AttributeError) as error:
        raise UffdlabError(f"{path} is no notebook: {str(error).partition(chr(10))[0]}") from error
    page.write_text(_as_page(document), encoding="utf-8")


def _as_page(document: nbformat.NotebookNode) -> str:
    from nbconvert import HTMLExporter

    # Without live widgets: the static form of each is in the notebook too.
    document.metadata.pop("widgets", None)
    for cell in document.cells:
        outputs = cell.get("outputs", [])
        kept = [output for output in outputs if _WIDGET not in output.get("data", {})]
        for output in outputs:
            output.get("data", {}).pop(_WIDGET, None)
        if any("uffdlab" in output.get("metadata", {}) for output in kept):
            cell.outputs = kept
    exporter = HTMLExporter(embed_images=True)
    for name in ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "widget_renderer_url"):
        if exporter.has_trait(name):
            setattr(exporter, name, "")
    text, _ = exporter.from_notebook_node(document)
    return _REMOTE.sub("", text)


@click.command()
@click.argument("notebook", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.argument("page", type=click.Path(dir_okay=False, path_type=Path), required=False)
def export(notebook: Path, page: Path | None) -> None:
    """Write NOTEBOOK, as it was saved, to one HTML file: PAGE, by default beside it, to hand in."""
    target = page or notebook.with_suffix(".html")
    with exit_status.from_errors():
        export_page(notebook, target)
    click.echo(f"Written: {target}")


@click.command()
@click.argument("notebook", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.argument("page", type=click.Path(dir_okay=False, path_type=Path))
def notebook(notebook: Path, page: Path) -> None:
    """Run NOTEBOOK and write it, as executed, to PAGE; `UFFDLAB_MACHINE` selects where its lab runs."""
    with exit_status.from_errors():
        execute(notebook, page, report=click.echo)
    click.echo(f"Written: {page}")
