"""The notebook widgets: they show what a lab knows and control it.  Each works alone."""

from uffdlab.widgets.bench import Bench
from uffdlab.widgets.compare_grids import CompareGrids
from uffdlab.widgets.fault_log import FaultLog
from uffdlab.widgets.ioctl_panel import IoctlPanel
from uffdlab.widgets.kernel_picker import KernelPicker
from uffdlab.widgets.lab_panel import LabPanel
from uffdlab.widgets.page_grid import PageGrid
from uffdlab.widgets.pte_inspector import PteInspector
from uffdlab.widgets.timeline_view import TimelineView

__all__ = [
    "Bench",
    "CompareGrids",
    "FaultLog",
    "IoctlPanel",
    "KernelPicker",
    "LabPanel",
    "PageGrid",
    "PteInspector",
    "TimelineView",
]
