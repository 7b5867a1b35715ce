"""`make lab` opens JupyterLab on a copy of the notebook."""

import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "notebooks" / "minor_wp.ipynb"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture
def lab_address(tmp_path):
    """The address that `make lab` prints.  Nothing is installed."""
    log = tmp_path / "log"
    command = ["make", "-o", "setup-lab", "lab", f"LABDIR={tmp_path / 'mine'}", "LABFLAGS=--no-browser --port=0"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found[0]
    finally:
        children = [*psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else []
        server.terminate()
        for child in children:
            try:
                child.terminate()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(children, 20)
        server.wait(20)


def test_make_lab_does_not_change_the_notebook_of_the_repository(lab_address, page, tmp_path):
    before, copy = NOTEBOOK.read_bytes(), tmp_path / "mine" / "minor_wp.ipynb"
    page.goto(lab_address)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
    # Opening it changes nothing: there is nothing to save.
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.type("# mine\n")
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0, timeout=30_000)
    assert "# mine" in copy.read_text()
    assert NOTEBOOK.read_bytes() == before
    # The next `make lab` does not overwrite it.
    saved = copy.read_bytes()
    again = ["make", "-o", "setup-lab", "lab", f"LABDIR={copy.parent}", "LABFLAGS=--version"]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "stays as it is" in done.stdout
    assert copy.read_bytes() == saved
