"""`make lab`: JupyterLab on a copy of the notebook, whatever the user does there."""

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
def opened(tmp_path):
    """Return the address that `make lab` prints, without what it would install."""
    log = tmp_path / "log"
    command = ["make", "-o", "setup-lab", "lab", f"LABDIR={tmp_path / 'mine'}", "LABFLAGS=--no-browser --port=0"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not (found := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield found[0]
    finally:
        family = [*psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else []
        server.terminate()
        for each in family:
            try:
                each.terminate()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, 20)
        server.wait(20)


def test_the_notebook_of_the_repository_is_not_touched(opened, page, tmp_path):
    before, copy = NOTEBOOK.read_bytes(), tmp_path / "mine" / "minor_wp.ipynb"
    page.goto(opened)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
    # Opened, it is as it was: nothing to save.
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.type("# mine\n")
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0, timeout=30_000)
    assert "# mine" in copy.read_text()
    assert NOTEBOOK.read_bytes() == before
    # The next `make lab` keeps it.
    saved = copy.read_bytes()
    again = ["make", "-o", "setup-lab", "lab", f"LABDIR={copy.parent}", "LABFLAGS=--version"]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "stays as it is" in done.stdout
    assert copy.read_bytes() == saved
