"""The widgets: what a lab knows, to look at and to act on in a notebook.  Each works alone."""

from uffdlab.widgets.fault_log import FaultLog
from uffdlab.widgets.ioctl_panel import IoctlPanel
from uffdlab.widgets.page_grid import PageGrid
from uffdlab.widgets.pte_inspector import PteInspector
from uffdlab.widgets.timeline_view import TimelineView

__all__ = ["FaultLog", "IoctlPanel", "PageGrid", "PteInspector", "TimelineView"]
