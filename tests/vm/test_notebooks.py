"""Every notebook runs from top to bottom on real kernels, without an error."""

import time
from pathlib import Path

import nbclient
import nbformat
import papermill
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(480)]

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"
# Run All takes 25 s on two idle cores with all kernels in the cache; the tests may share the cores.
RUN_SECONDS = 240


# Prints the number of open labs and of running machines.
COUNT_LABS = (
    "import gc; gc.collect(); from uffdlab.machines.base import _MACHINES; print(len(uffdlab.labs()), len(_MACHINES))"
)

each_notebook = pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def client_of(notebook, tmp_path):
    return nbclient.NotebookClient(
        notebook, timeout=RUN_SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )


@each_notebook
def test_rerunning_cells_opens_no_further_lab(path, tmp_path):
    """After Run All, each cell twice, and each cell without a lab again, there is one lab and one guest."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    twice = [source for cell in code for source in (cell, cell)]
    sources = [*code, COUNT_LABS, *twice, COUNT_LABS, *(source for source in code if "Lab(" not in source), COUNT_LABS]
    rerun = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client_of(rerun, tmp_path).execute()  # raises CellExecutionError
    first, *later = [cell.outputs[0].text for cell in rerun.cells if cell.source == COUNT_LABS]
    assert first == "1 1\n"
    assert later == [first] * 2


@each_notebook
def test_a_notebook_runs_without_errors_and_its_figures_have_alt_text(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    client = client_of(notebook, tmp_path)
    start = time.monotonic()
    client.execute()
    seconds = time.monotonic() - start

    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [
        output for cell in code for output in cell.outputs if output.output_type in ("display_data", "execute_result")
    ]
    assert shown, "nothing is shown"
    # A picture that is only PNG or SVG has no alt text in any viewer.
    for output in shown:
        if {"image/png", "image/svg+xml"} & set(output.data):
            assert "alt=" in output.data.get("text/html", ""), "a picture without an HTML form with alt text"
    assert seconds < RUN_SECONDS


@each_notebook
def test_papermill_runs_a_notebook_with_other_parameters(path, tmp_path):
    given = {"KERNEL": "debian/trixie", "PAGES": 16}
    found = papermill.inspect_notebook(path)
    assert given.keys() <= found.keys()
    papermill.execute_notebook(
        path, tmp_path / path.name, parameters=given, cwd=tmp_path, progress_bar=False, execution_timeout=RUN_SECONDS
    )
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    shown = "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", []))
    assert "Lab: debian/trixie" in shown
    assert "16 pages" in shown
