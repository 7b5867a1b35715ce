"""Work for the notebook kernel's event loop, handed over from any thread."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

_waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()


def running() -> Any:
    """Give the event loop of the notebook kernel that this is; None in a script or a test."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(getattr(shell, "kernel", None), "io_loop", None)


def soon(action: Callable[[], None]) -> None:
    """Have `action` called on the main thread.

    In a notebook kernel: by its event loop, that is after the cell that runs now.  Elsewhere: at once if this is the
    main thread, else when the main thread next comes by here.
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
    """Have `action` called on the main thread after some seconds; outside of a notebook kernel, as :func:`soon`."""
    loop = running()
    if loop is None:
        soon(action)
    else:
        loop.add_callback(loop.call_later, seconds, action)
