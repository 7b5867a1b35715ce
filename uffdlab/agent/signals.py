"""The numbers of the signals that the agent uses (signal(7)).  Importing Python's own module takes longer."""

from __future__ import annotations

SIGINT, SIGKILL, SIGPIPE, SIGXFSZ = 2, 9, 13, 25  # the same on x86-64 and arm64
