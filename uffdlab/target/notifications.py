"""News: what the agent tells without being asked, brought to whom it concerns and to the timeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from uffdlab.errors import TargetLost, UffdlabError
from uffdlab.machines.rpc.client import LOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.target.registry import Belongings
    from uffdlab.target.timeline import Timeline

_log = logging.getLogger(__name__)


class News:
    """What hears a machine's notifications for a lab.

    Parameters
    ----------
    belongings : Belongings
    timeline : Timeline
    now : callable
        Gives the guest's CLOCK_MONOTONIC in ns.
    """

    def __init__(self, belongings: Belongings, timeline: Timeline, now: Callable[[], int]) -> None:
        self._belongings = belongings
        self._timeline = timeline
        self._now = now
        self._kinds: dict[str, Callable[..., None]] = {
            "message": self._message,
            "touch": self._touch,
            "target-lost": self._target_lost,
            "feed-error": self._feed_error,
            LOST: self._machine_lost,
        }

    def hear(self, method: str, params: list[Any]) -> None:
        """Take one notification.  It runs on the machine's reader thread: nothing here may wait."""
        kind = self._kinds.get(method)
        if kind is not None:
            kind(*params)

    def _message(self, number: int, data: bytes, time_ns: int, adopted: int) -> None:
        uffd = self._belongings.userfaultfd(number)
        if uffd is not None:
            uffd.deliver(data, time_ns, adopted)

    def _touch(self, number: int, end: dict[str, Any]) -> None:
        touch = self._belongings.pop_touch(number)
        if touch is not None:
            touch.finish(end)
            text = f"{touch.what}: {end['state']}"
            self._timeline.add("touch", text, end["started_ns"], end["ended_ns"], touch)

    def _feed_error(self, why: str) -> None:
        text = f"the target cannot tell of all that happens; it tries again: {why}"
        _log.warning("%s", text)
        self._timeline.add("target", text, self._now())

    def _target_lost(self, _pid: int, why: str, *_: object) -> None:
        self._belongings.lose(why)
        self._timeline.add("target", f"the target is lost: {why}", self._now(), None, TargetLost(why))

    def _machine_lost(self, error: UffdlabError) -> None:
        self._belongings.hear_no_more(error)
        why, _, _ = str(error).partition("\n")  # the console's tail is in the error
        self._timeline.add("lab", f"the machine is lost: {why}", self._now(), None, error)
