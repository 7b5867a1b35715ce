"""A real JupyterLab on a random port, and Debian's Chromium; both end with the tests."""

import ctypes
import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = "/usr/bin/chromium"
# No test needs the network.  Without these flags Chromium contacts servers at every start.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    # By default cells that are not visible are not in the page; the tests read all cells.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass
class Server:
    """A running JupyterLab: its address, its token, the folder that it serves, and its log."""

    url: str
    token: str
    folder: Path
    log: Path

    def address(self, notebook):
        return f"{self.url}lab/tree/{notebook}?token={self.token}&reset"


def _end_with_parent():
    # prctl(PR_SET_PDEATHSIG, SIGTERM): the server ends its kernels and itself, also if pytest is killed.
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


def _stop(process):
    processes = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
    for child in processes[1:]:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def _wait_for_server(process, runtime, log, deadline=60.0):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        for path in runtime.glob("jpserver-*.json"):
            try:
                return json.loads(path.read_text())["url"]
            except (ValueError, KeyError):
                pass  # not completely written yet
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start within {deadline:.0f} s:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def jupyterlab(tmp_path_factory):
    home = tmp_path_factory.mktemp("jupyter")
    folder, config, runtime, log = home / "notebooks", home / "config", home / "runtime", home / "log"
    # A copy: JupyterLab saves outputs in a notebook, and the repository's notebook has none.
    shutil.copytree(ROOT / "notebooks", folder)
    # They have the version of Debian 12's Python (tests/test_packaging.py); here another one may run.
    for notebook in folder.glob("*.ipynb"):
        text, running = notebook.read_text(), f'"version": "{platform.python_version()}"'
        notebook.write_text(text.replace('"version": "3.11.2"', running))
    settings = config / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(SETTINGS))
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTERLAB_SETTINGS_DIR": str(config / "lab" / "user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(config / "lab" / "workspaces"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_TOKEN": token,
    }
    command = [
        *[sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"],
        *["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}"],
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 — a fresh interpreter, no threads of ours yet
        )
        try:
            yield Server(_wait_for_server(process, runtime, log), token, folder, log)
        finally:
            _stop(process)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    if not Path(CHROMIUM).exists():
        pytest.fail(f"no {CHROMIUM}: run `make test-browser`, which installs it")
    with sync_playwright() as playwright:
        home = {"XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("chromium"))}  # it writes there with any profile
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS, env=os.environ | home)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    (ROOT / "build" / "browser").mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(viewport={"width": 1280, "height": 1600})
    page = context.new_page()
    page.thrown = []  # errors of the page's JavaScript
    page.on("pageerror", lambda error: page.thrown.append(str(error)))
    yield page
    page.screenshot(path=ROOT / "build" / "browser" / "last.png")  # helps after a failure
    context.close()


@pytest.fixture
def run_cells(jupyterlab, page):
    """Return a function that opens a new notebook with these cells in JupyterLab, and runs them all."""

    def run(name, *cells, deadline=180.0):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        (jupyterlab.folder / f"{name}.ipynb").write_text(nbformat.writes(notebook))
        page.goto(jupyterlab.address(f"{name}.ipynb"))
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
        page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        prompts = """count => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]
            .slice(0, count).every(prompt => /[0-9]/.test(prompt.innerText))"""
        page.wait_for_function(prompts, arg=len(cells), timeout=deadline * 1000)

    return run


@pytest.fixture(scope="session")
def axe():
    """Return a function that checks an element of a page by axe-core and returns the violations."""
    folder = ROOT / "tests" / "widgets-js"
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
                       cwd=folder, check=True, timeout=300, capture_output=True)  # fmt: skip

    def check(page, selector):
        page.evaluate(script.read_text())
        found = page.evaluate("selector => axe.run(selector, { resultTypes: ['violations'] })", selector)
        return [
            f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes'][:3]]}"
            for violation in found["violations"]
        ]

    return check
