"""What a user sees of an error of this package: its message, and the line of their own that led to it.

The lines of this package help who works on it, and bury the message for everybody else.  All of the traceback comes
with ``%xmode Verbose`` in IPython and Jupyter, and with ``UFFDLAB_TRACEBACK=full`` or ``python -X dev`` in a script.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

_FULL_MODES = ("Verbose", "Docs")  # of %xmode


def users_line(error: BaseException) -> traceback.FrameSummary | None:
    """Return the innermost line of the traceback that is neither of a library nor of Python's own; None without one."""
    libraries = {str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))}
    inner = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        # Of a dataclass, Python writes methods itself, as "<string>" in the module of the class.
        generated = file.startswith("<") and frame.f_globals.get("__name__", "").partition(".")[0] == __package__
        own = not file.startswith("<frozen") and not generated
        if own and not any(file.startswith(f"{folder}{os.sep}") for folder in libraries):
            inner = traceback.FrameSummary(file, number, frame.f_code.co_name)
    return inner


def message(error: BaseException) -> str:
    """Return the name of an error's class, its message and its notes."""
    return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])


def for_ipython(error: BaseException) -> list[str]:
    """Return the lines that IPython and Jupyter show for an error; with ``%xmode Verbose`` those of any other error."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and shell.InteractiveTB.mode in _FULL_MODES:
        whole: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
        return whole
    lines = message(error).splitlines()
    line = users_line(error)
    if line is not None:
        lines.append(f"{_place(line, shell)}: {line.line}")
    return lines


def _place(line: traceback.FrameSummary, shell: Any) -> str:
    # A cell's file has a name that means nothing to its user; IPython knows the number of the cell.
    named = shell.compile.format_code_name(line.filename) if shell is not None else None
    where = " ".join(named) if named else Path(line.filename).name
    return f"{where}, line {line.lineno}"


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that ends a script: one of this package in short, any other as Python does."""
    line = users_line(error)
    if not _is_ours(kind) or line is None or sys.flags.dev_mode or _full_by_setting():
        sys.__excepthook__(kind, error, trace)
        return
    print(f"{_place(line, None)}: {message(error)}", file=sys.stderr)  # noqa: T201 - as sys.__excepthook__ does


def _full_by_setting() -> bool:
    # The settings are above the errors: they are loaded by name, when an error has ended the script.
    return bool(importlib.import_module("uffdlab.settings").full_tracebacks())


def _is_ours(kind: type[BaseException]) -> bool:
    return hasattr(kind, "_render_traceback_") and kind.__module__.partition(".")[0] == __package__


def install() -> None:
    """Set :func:`excepthook` to print the errors that end a script, unless something else prints them already."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = excepthook
