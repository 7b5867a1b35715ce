"""Regular notifications to an agent behind ssh, since a lost connection does not always give an end of file."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from uffdlab import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.machines.rpc.client import Client

INPUT_DEADLINE = 45.0  # seconds without a frame from the host after which the agent ends

_INTERVAL = 10.0  # seconds
_END = 5.0  # seconds to wait for the thread


def start(client: Client) -> Callable[[], None]:
    """Send heartbeats until the machine has ended; return a function that stops them."""
    stopped = threading.Event()
    thread = threading.Thread(target=_beat, args=(weakref.ref(client), stopped), name="uffdlab-heartbeat", daemon=True)
    thread.start()

    def end() -> None:
        stopped.set()
        thread.join(_END)

    return end


def _beat(client_reference: weakref.ref[Client], stopped: threading.Event) -> None:
    while not stopped.wait(_INTERVAL):
        client = client_reference()
        if client is None:
            return
        try:
            client.notify("alive", _INTERVAL)
        except errors.UffdlabError:
            return
        del client
