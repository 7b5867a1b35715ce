"""`uffdlab notebook` with a real Jupyter kernel: how it talks, and each way in which it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from uffdlab.cli import jupyterlab, notebook_kernel
from uffdlab.cli.main import main

from ..leftovers import gone_within


@pytest.fixture(autouse=True)
def jupyters_folders(tmp_path, monkeypatch):
    for name in ("RUNTIME_DIR", "DATA_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"JUPYTER_{name}", str(tmp_path / name))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a notebook of some cells and returns the command's result and the page."""

    def run(*cells):
        document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        nbformat.write(document, tmp_path / "cells.ipynb")
        page = tmp_path / "page.html"
        result = CliRunner().invoke(main, ["notebook", str(tmp_path / "cells.ipynb"), str(page)], prog_name="uffdlab")
        assert "Traceback" not in result.stderr or "cell of" in result.stderr
        return result, page.read_text() if page.exists() else ""

    return run


def test_the_kernel_listens_on_no_port_and_leaves_no_socket(run, tmp_path):
    shown = "from ipykernel.kernelapp import IPKernelApp as app; print(app.instance().transport, app.instance().ip)"
    result, page = run(shown)
    assert result.exit_code == 0, result.output
    assert "ipc @uffdlab-" in page
    assert [path for path in tmp_path.rglob("*") if path.is_socket()] == []


def test_a_cell_that_fails_leaves_the_cells_before_it_on_the_page(run):
    result, page = run("print('six', 'times')", "1 / 0", "print('never', 'reached')")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr
    assert "page.html has the cells, as far as they ran" in result.stderr
    assert "six times" in page
    assert "never reached" not in page


def test_a_kernel_that_dies(run):
    result, page = run("print('six', 'times')", "import os; os._exit(3)")
    assert result.exit_code == 1
    assert "because of Jupyter's kernel: Kernel died. The cell may have ended it" in result.stderr
    assert "six times" in page


def test_a_kernel_that_no_longer_answers(run, monkeypatch):
    monkeypatch.setattr(notebook_kernel, "CELL_DEADLINE", 1)
    result, _ = run("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    assert result.exit_code == 1
    assert "did not end within 1 s" in result.stderr


@pytest.mark.parametrize(
    ("command", "reason"),
    [(["sh", "-c", "sleep 1000"], "didn't respond in 1 seconds"), (["false"], "died"), (["/none"], "none")],
)
def test_a_kernel_that_does_not_start(run, monkeypatch, tmp_path, command, reason):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "x", "language": "python"}))
    monkeypatch.setattr(notebook_kernel, "START_DEADLINE", 1)
    result, _ = run("1")
    assert (result.exit_code, reason in result.stderr) == (1, True), result.output
    assert "jupyter kernelspec list" in result.stderr


def test_ctrl_c_ends_the_kernel(tmp_path):
    mark = tmp_path / "pid"
    source = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()) + '.')\ntime.sleep(1000)"
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(document, tmp_path / "cells.ipynb")
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "uffdlab", "notebook", "cells.ipynb", "page.html"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0,
    ) as process:  # fmt: skip
        while not mark.exists() or not mark.read_text().endswith("."):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert (process.returncode, output) == (130, "\npython -m uffdlab: stopped\n")
    assert gone_within(10, int(mark.read_text().rstrip(".")))


@pytest.mark.parametrize("text", ["", "{}", "no notebook", '{"cells": 7, "nbformat": 4, "nbformat_minor": 5}'])
@pytest.mark.parametrize("command", ["notebook", "export"])
def test_a_file_that_is_no_notebook(tmp_path, text, command):
    (tmp_path / "x.ipynb").write_text(text)
    result = CliRunner().invoke(main, [command, str(tmp_path / "x.ipynb"), str(tmp_path / "x.html")])
    assert (result.exit_code, "is no notebook" in result.output) == (1, True), result.output
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("command", ["notebook", "export"])
def test_a_page_that_cannot_be_written_is_found_first(tmp_path, command):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "x.ipynb")
    result = CliRunner().invoke(main, [command, str(tmp_path / "x.ipynb"), str(tmp_path / "none" / "x.html")])
    assert (result.exit_code, "cannot be written: No such file" in result.output) == (2, True), result.output


@pytest.mark.parametrize(("length", "fits"), [(30, True), (200, False)])
def test_jupyterlabs_kernels_use_sockets_if_their_paths_fit(monkeypatch, length, fits):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", "/" + "x" * length)
    monkeypatch.chdir(Path("/tmp"))
    commands = []
    monkeypatch.setattr(jupyterlab.os, "execv", lambda _, command: commands.append(command))
    monkeypatch.setattr(jupyterlab, "copy_notebooks", lambda _: [])
    CliRunner().invoke(main, ["lab"])
    assert ("--KernelManager.transport=ipc" in commands[0]) is fits
