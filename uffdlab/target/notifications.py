"""News: what the agent tells without being asked, brought to whom it concerns and to the timeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from uffdlab.errors import TargetLost
from uffdlab.machines.rpc.client import MachineGone
from uffdlab.uapi.protocol import FeedFailed, MessageRead, Notification, TargetEnded, TouchEnded

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

    def hear(self, news: Notification | MachineGone) -> None:
        """Take one notification.  It runs on the machine's reader thread: nothing here may wait."""
        match news:
            case MessageRead(number, data, time_ns, adopted):
                uffd = self._belongings.userfaultfd(number)
                if uffd is not None:
                    uffd.deliver(data, time_ns, adopted)
            case TouchEnded(number, result):
                touch = self._belongings.pop_touch(number)
                if touch is not None:
                    touch.finish(result)
                    text = f"{touch.what}: {result.state}"
                    self._timeline.add("touch", text, result.started_ns, result.ended_ns, touch)
            case FeedFailed(why):
                text = f"the target cannot tell of all that happens; it tries again: {why}"
                _log.warning("%s", text)
                self._timeline.add("target", text, self._now())
            case TargetEnded():
                self._belongings.lose(news.why)
                self._timeline.add("target", f"the target is lost: {news.why}", self._now(), None, TargetLost(news.why))
            case MachineGone(error):
                self._belongings.hear_no_more(error)
                why, _, _ = str(error).partition("\n")  # the console's tail is in the error
                self._timeline.add("lab", f"the machine is lost: {why}", self._now(), None, error)
