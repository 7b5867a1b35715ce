"""Figures of page states, for print and for readers without a running kernel.

A page is a cell with a letter, a colour and a hatch (:mod:`uffdlab.figures.palette`). No state is shown by colour
alone. Every picture has a text that is made from the same data. The same data give the same bytes.
"""

from __future__ import annotations

from uffdlab.figures.pictures import Comparison, Picture, compare, grid, side_by_side
from uffdlab.figures.tables import Table, entry, entry_table

__all__ = ["Comparison", "Picture", "Table", "compare", "entry", "entry_table", "grid", "side_by_side"]
