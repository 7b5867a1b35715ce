"""The modules that the agent imports when they are first needed: whoever packs it must pack them too."""

from __future__ import annotations

NAMES = "fcntl", "signal", "traceback", "uffdlab.agent.probe", "uffdlab.agent.target"


def load() -> None:
    """Import them all now, so that nobody who comes out of a saved state has to wait for it."""
    for name in NAMES:
        __import__(name)
