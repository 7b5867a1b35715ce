"""In Jupyter, names in strings are completed, and objects offer only public names."""

import subprocess
import sys

import nbclient
import nbformat
import pytest

from uffdlab import jupyter
from uffdlab.cli.notebook import _as_page
from uffdlab.target.region import PageRange, Region
from uffdlab.target.touch import Touch
from uffdlab.target.userfaultfd import Userfaultfd


@pytest.mark.parametrize(
    ("code", "offered"),
    [
        ('uffdlab.Lab("6.1-s', ["6.1-series"]),
        ("lab = Lab(kernel='debian/trixie-", ["debian/trixie-backports"]),
        ('Lab("6.1-series", machine="v', ["vagrant"]),
        ('region = lab.map(64, memory="hugetlb-1', ["hugetlb-1g", "hugetlb-1g-private"]),
        ('uffd.register(region[1:3], "mi', ["missing", "minor"]),
        ('uffd.register(region, "minor", "w', ["wp"]),
        ('uffd.ioctl("UFFDIO_CON', ["UFFDIO_CONTINUE"]),
        ('with lab.userfaultfd() as u:\n    u.batch("UFFDIO_CON', ["UFFDIO_CONTINUE"]),
        ('region.madvise("dontn', ["dontneed", "dontneed_locked"]),
        ('f(g(1), [2, "x"], region.snapshot("page', ["pagemap"]),
        ('region.snapshot(witness="sc', ["scan"]),
        ('region.sweep("write", order="d', ["descending"]),
        ('uffd.handle_natively(minor="continue_', ["continue_wp"]),
    ],
)
def test_names_in_strings_are_completed(code, offered):
    typed, names = jupyter.completions(code)
    assert sorted(names) == sorted(offered)
    assert all(name.startswith(typed) for name in names)


@pytest.mark.parametrize(
    "code", ["", "lab.map(", 'print("6.1', 'x = "6.1', 'lab.map(64, "sh")', '"a" + Lab(', 'lab.map(pages="6', "f(]'"]
)
def test_nothing_is_completed_elsewhere(code):
    assert jupyter.completions(code)[1] == []


SCRIPT = """
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import uffdlab, uffdlab.lab, uffdlab.figures")
def complete(code):
    with provisionalcompleter():
        return [each.text for each in shell.Completer.completions(code, len(code))]
print(*complete('uffdlab.Lab("debian/trixie-b'))
print(*complete('uffdlab.Lab("6.1-ser'))
print(*(each for each in complete("uffdlab.") if each.strip(".")[0] != "_"))
"""


def test_ipython_completes_names_and_offers_public_ones_only(tmp_path):
    import uffdlab

    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["debian/trixie-backports", "6.1-series"]
    assert sorted(each.strip(".") for each in done.stdout.splitlines()[2].split()) == sorted(uffdlab.__all__)


NOTEBOOK = """
import numpy as np, uffdlab
from uffdlab.observations.snapshot import Snapshot
before, after = (
    Snapshot(region="r", start=0x1000, page_size=4096, witness="physical", kernel="k",
             entries=np.array([entry, 0], np.uint64), levels=np.ones(2, np.uint8))
    for entry in (0, 0x8000000000100465)
)
uffdlab.compare(before, after)
"""


def test_a_comparison_is_live_in_a_notebook_with_its_figure_as_static_form(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", store_widget_state=False).execute()
    live, static = notebook.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in live.data
    assert live.data["text/plain"].startswith("after against before: 1 page (0): absent → present")
    assert static.metadata["uffdlab"]
    assert 'alt="r: 2 pages of 4 KiB on k, seen by physical. Before: pages 0–1: absent.' in static.data["text/html"]
    page = _as_page(notebook)
    assert page.count("Before: pages 0–1: absent.") == 1
    assert "widget-view" not in page


# Every name that TAB offers after a touch, a userfaultfd, and a region that its pages do not have.
OFFERED = {
    Touch: "outcome progress result state waited_ns withdraw",
    Userfaultfd: """batch close continue_ copy handle handle_natively intercept ioctl messages move open poison
        read_fault read_message register registered resume rwprotect set_mode start subscribe unread unregister
        wait_for wake writeprotect zeropage""",
    Region: "alias mremap page_of probe unmap walk",
}


@pytest.mark.parametrize("kind", OFFERED, ids=lambda kind: kind.__name__)
def test_an_object_offers_what_is_meant_for_users(kind):
    offered = {name for name in dir(kind) if name[0] != "_"}
    assert offered - set(dir(PageRange)) == set(OFFERED[kind].split()) - set(dir(PageRange))


def test_dir_lists_public_names_only():
    code = "import uffdlab, uffdlab.lab, uffdlab.figures; print(*(name for name in dir(uffdlab) if name[0] != '_'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    import uffdlab

    assert done.stdout.split() == sorted(uffdlab.__all__)
