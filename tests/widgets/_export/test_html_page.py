"""A page that nbconvert makes shows each widget's static form."""

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from uffdlab.observations.snapshot import Snapshot
from uffdlab.pte import Category
from uffdlab.widgets._export import html_page

CELL = """
import numpy as np
from uffdlab.observations.snapshot import Snapshot
from uffdlab.target.timeline import Timeline
from uffdlab.widgets import PageGrid, TimelineView
entries = np.array([0, 0x8000000000000465, 0x8000000000000867], np.uint64)
levels = np.ones(3, np.uint8)
pages = Snapshot(region="region-1", start=0, page_size=4096, witness="physical", entries=entries, levels=levels)
timeline = Timeline()
timeline.add("ioctl", "UFFDIO_WAKE(page 3) → ok", 1)
display(PageGrid(pages))
display(TimelineView(timeline))
"""


def test_a_page_of_nbconvert_has_the_data_of_each_widget():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=60, kernel_name="python3", store_widget_state=False).execute()
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert 'alt="region-1: 3 pages of 4 KiB' in page
    assert "data:image/png;base64," in page
    assert "UFFDIO_WAKE(page 3) → ok" in page
    assert "application/vnd.jupyter.widget-view+json" not in page


def test_an_entry_without_a_page_frame_is_shown_unchanged():
    entries = np.array([Category.WPALLOWED | Category.PRESENT], np.uint64)
    snapshot = Snapshot("region-1", 0, 4096, "scan", entries, np.zeros(1, np.uint8), form="pagemap-scan")
    (layout,) = html_page._details(snapshot)["layouts"]
    assert not layout["framed"]
    assert layout["rows"][0][:3] == ["63–10", "10–63", "0x0"]
