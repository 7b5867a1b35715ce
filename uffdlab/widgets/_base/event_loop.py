"""Schedule work on the notebook kernel's event loop, from any thread."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

_waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()


def running() -> Any:
    """Return the event loop if this process is a notebook kernel; None in a script or a test."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(getattr(shell, "kernel", None), "io_loop", None)


def run_in_loop(action: Callable[[], None]) -> None:
    """Call `action` on the main thread.

    In a notebook kernel its event loop makes the call, that is after the running cell.  Elsewhere the call is immediate
    if this is the main thread, else it waits until the main thread next calls this function.
    """
    loop = running()
    if loop is not None:
        loop.add_callback(action)
        return
    _waiting.put(action)
    if threading.current_thread() is threading.main_thread():
        while not _waiting.empty():
            _waiting.get()()


def later(seconds: float, action: Callable[[], None]) -> None:
    """Call `action` on the main thread after `seconds`; outside a notebook kernel, like :func:`run_in_loop`."""
    loop = running()
    if loop is None:
        run_in_loop(action)
    else:
        loop.add_callback(loop.call_later, seconds, action)
