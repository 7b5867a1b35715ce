"""The signals that the agent sends or names, by number (signal(7)); Python's own module makes enums of all of them."""

from __future__ import annotations

SIGINT, SIGKILL, SIGPIPE, SIGXFSZ = 2, 9, 13, 25  # the same on x86-64 and arm64
