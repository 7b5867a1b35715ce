"""Where a fresh interpreter is to look for modules, to find what this one finds."""

from __future__ import annotations

import sys
from pathlib import Path

import uffdlab


def module_path() -> list[str]:
    """Return the folders, that of this package first."""
    package = str(Path(uffdlab.__file__).parent.parent)
    return [package, *(entry for entry in sys.path if entry and entry != package)]
