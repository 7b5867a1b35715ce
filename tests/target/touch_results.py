"""Make the result of a touch, as the agent sends it."""

from uffdlab.uapi.protocol.target import TouchResult


def touch_result(**fields):
    defaults = {
        "state": "done",
        "value": 7,
        "thread": 1,
        "signal": 0,
        "signal_code": 0,
        "signal_address": 0,
        "returned": 0,
        "progress": 1,
        "started_ns": 100,
        "ended_ns": 350,
    }
    return TouchResult(**{**defaults, **fields})
