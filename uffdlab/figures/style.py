"""The style of all figures: colours, sizes, and matplotlib's settings."""

from __future__ import annotations

from typing import Any

PAPER, INK, FAINT, LINE = "#FFFFFF", "#1A1A1A", "#595959", "#7A7A7A"
ON_DARK = {INK: "#E8E8E8", FAINT: "#ABABAB"}  # colours of text where the background is dark
ABSENT_ON_DARK, ABSENT_INK_ON_DARK = "#2E2E2E", "#FFFFFF"  # of an absent page there, which else would glow
TITLE, PANEL, SMALL = 12.0, 10.5, 8.5  # points
DPI = 100  # of the layout; PNG files have twice that
POINTS = 72.0  # in an inch
RC: Any = {
    "hatch.linewidth": 0.7,
    "svg.hashsalt": "uffdlab",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.bbox": None,
}
