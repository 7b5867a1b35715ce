"""Notifications: deliver the agent's notifications to the objects that they concern, and to the timeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from uffdlab.errors import TargetLost
from uffdlab.machines.rpc.client import MachineGone
from uffdlab.uapi.protocol.notifications import FeedFailed, MessageRead, Notification, TargetEnded, TouchEnded

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.target.registry import Registry
    from uffdlab.target.timeline import Timeline

_log = logging.getLogger(__name__)


class Notifications:
    """Delivers the notifications of a machine to the userfaultfds and touches of its target.

    Parameters
    ----------
    registry : Registry
    timeline : Timeline
    now : callable
        Returns the guest's CLOCK_MONOTONIC in ns.
    """

    def __init__(self, registry: Registry, timeline: Timeline, now: Callable[[], int]) -> None:
        self._registry = registry
        self._timeline = timeline
        self._now = now

    def dispatch(self, notification: Notification | MachineGone) -> None:
        """Deliver one notification.  This runs on the machine's reader thread and must not wait."""
        match notification:
            case MessageRead(number, data, time_ns, adopted):
                uffd = self._registry.userfaultfd(number)
                if uffd is not None:
                    uffd._deliver(data, time_ns, adopted)
            case TouchEnded(number, result):
                touch = self._registry.pop_touch(number)
                if touch is not None:
                    touch._finish(result)
                    text = f"{touch.what}: {result.state}"
                    self._timeline.add("touch", text, result.started_ns, result.ended_ns, touch)
            case FeedFailed(why):
                text = f"the target cannot read all messages and ends of touches; it tries again: {why}"
                _log.warning("%s", text)
                self._timeline.add("target", text, self._now())
            case TargetEnded():
                self._registry.lose(notification.why)
                self._timeline.add(
                    "target", f"the target is lost: {notification.why}", self._now(), None, TargetLost(notification.why)
                )
            case MachineGone(error):
                self._registry.machine_lost(error)
                why, _, _ = str(error).partition("\n")  # the rest is the end of the console
                self._timeline.add("lab", f"the machine is lost: {why}", self._now(), None, error)
