"""Experiments that can be repeated: each is a function of a Lab that returns a Result."""

from __future__ import annotations

from uffdlab.scenarios.minor_wp import minor_wp
from uffdlab.scenarios.result import Check, Group, Result

SCENARIOS = {"minor_wp": minor_wp}

__all__ = ["SCENARIOS", "Check", "Group", "Result", "minor_wp"]
