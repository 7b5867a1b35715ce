"""The modules that the agent imports when it first needs them. Packing the agent must include them."""

from __future__ import annotations

NAMES = "fcntl", "signal", "traceback", "uffdlab.agent.probe", "uffdlab.agent.target"


def load() -> None:
    """Import them all now, so that a restored guest need not wait for it."""
    for name in NAMES:
        __import__(name)
