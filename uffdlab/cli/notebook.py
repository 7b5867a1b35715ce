"""``uffdlab notebook`` runs a notebook and writes it as a page; ``uffdlab export`` writes one as it was saved."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uffdlab.cli import exit_status
from uffdlab.cli.output_file import require_writable
from uffdlab.errors import UffdlabError

if TYPE_CHECKING:
    import nbformat

_WIDGET = "application/vnd.jupyter.widget-view+json"
_REMOTE = re.compile(r"<script[^>]*\ssrc=\"(?:https?:[^\"]*)?\"[^>]*>\s*</script>")  # nothing may be fetched


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
        The file is no notebook, a cell failed, or Jupyter's kernel did.  The page has the cells that ran.
    """
    from uffdlab.cli.notebook_kernel import run_cells

    started = time.monotonic()
    document = _read(path)
    try:
        run_cells(document, path)
    except UffdlabError as error:
        error.add_note(f"{html} has the cells, as far as they ran")
        raise
    finally:
        html.write_text(_as_page(document), encoding="utf-8")
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
    page.write_text(_as_page(_read(path)), encoding="utf-8")


def _read(path: Path) -> nbformat.NotebookNode:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise UffdlabError(f"{path} cannot be read: {error.strerror}") from error
    except (nbformat.ValidationError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise UffdlabError(f"{path} is no notebook: {str(error).partition(chr(10))[0]}") from error


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
    require_writable(target, "PAGE")
    with exit_status.from_errors():
        export_page(notebook, target)
    click.echo(f"Written: {target}")


@click.command(epilog="Example: UFFDLAB_MACHINE=local uffdlab notebook minor_wp.ipynb minor_wp.html")
@click.argument("notebook", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.argument("page", type=click.Path(dir_okay=False, path_type=Path))
def notebook(notebook: Path, page: Path) -> None:
    """Run NOTEBOOK and write it, as executed, to PAGE; `UFFDLAB_MACHINE` selects where its lab runs.

    PAGE is also written if a cell fails. Exit status: 0 success, 1 a cell or Jupyter's kernel failed, 2 bad usage, 130
    Ctrl-C.
    """
    require_writable(page, "PAGE")
    with exit_status.from_errors(booted=True):
        execute(notebook, page, report=click.echo)
    click.echo(f"Written: {page}")
