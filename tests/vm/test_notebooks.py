"""Every notebook runs from top to bottom on real kernels, without an error."""

import time
from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(480)]

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"
# What Run All may take with all kernels in the cache is 25 s on two idle cores; the tests may have less of them.
RUN_SECONDS = 240


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebook_runs(path, tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=RUN_SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    start = time.monotonic()
    client.execute()
    seconds = time.monotonic() - start

    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [
        output for cell in code for output in cell.outputs if output.output_type in ("display_data", "execute_result")
    ]
    assert shown, "nothing is shown"
    # No picture is mute: one that comes as PNG or SVG alone has no alt text in any viewer.
    for output in shown:
        if {"image/png", "image/svg+xml"} & set(output.data):
            assert "alt=" in output.data.get("text/html", ""), "a picture without an HTML form that has alt text"
    assert seconds < RUN_SECONDS
