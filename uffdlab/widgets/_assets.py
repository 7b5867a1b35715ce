"""The widgets' JavaScript and CSS, read from the folder static/.

A widget needs its JavaScript as one module, but the code consists of small ES modules that vitest can import one by
one.  This module joins them: dependencies first, without ``import`` lines, and with ``export`` only for the default.
They may use only the form ``import { a, b } from "./file.js";``, on one line.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent / "static"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


@functools.cache
def javascript(name: str) -> str:
    """Return the module `name` (``page_grid.js``) with everything that it imports, as one ES module."""
    order: list[str] = []
    _visit(name, order)
    parts = []
    for each in order:
        text = _IMPORT.sub("", (HERE / each).read_text(encoding="utf-8"))
        parts.append(_EXPORT.sub("", text).strip())
    return "\n\n".join(parts) + "\n"


@functools.cache
def css(*names: str) -> str:
    """Return the style sheets `names`, joined."""
    return "\n".join((HERE / name).read_text(encoding="utf-8").strip() for name in names) + "\n"


def _visit(name: str, order: list[str]) -> None:
    if name in order:
        return
    for needed in _IMPORT.findall((HERE / name).read_text(encoding="utf-8")):
        _visit(needed, order)
    order.append(name)
