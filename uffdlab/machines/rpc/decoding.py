"""Validates what comes from a guest against the types of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from uffdlab.machines.rpc.framing import Malformed
from uffdlab.uapi.protocol.errors import ErrorAnswer
from uffdlab.uapi.protocol.notifications import NOTIFICATIONS, HelloFacts, Notification

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.uapi.protocol.base import Method

_Answer = TypeVar("_Answer")
_MAX_ERROR_TEXT = 300  # characters of an error text: a part of it comes from the guest


def answer(request: Method[_Answer], raw: Any) -> _Answer:
    """Return the answer to a request; Malformed, with method and field, if it does not have the method's type."""
    kind: type[_Answer] = type(request).answer()
    return _valid(raw, kind, f"the answer to {request.method}", request.check)


def notification(method: str, params: list[Any]) -> Notification:
    """Return a notification; Malformed, with the field, if there is none of that name and parameters."""
    kind = NOTIFICATIONS.get(method)
    if kind is None:
        raise Malformed(f"there is no notification {method[:40]!r}")
    return _valid(params, kind, f"the notification {method}")


def error_answer(raw: Any) -> ErrorAnswer:
    """Return the error that came in place of an answer; Malformed, with the field, if it is none of the protocol."""
    return _valid(raw, ErrorAnswer, "an error")


def facts(raw: Any) -> HelloFacts:
    """Return the facts of an agent's hello, as they were saved; Malformed, with the field, if they are not that."""
    return _valid(raw, HelloFacts, "the hello")


def _valid(raw: Any, kind: type[_Answer], what: str, check: Callable[[_Answer], None] = lambda _: None) -> _Answer:
    try:
        # Without builtin_types msgspec decodes text as base64 where bytes are expected.
        found = msgspec.convert(raw, kind, builtin_types=(bytes,))
        check(found)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"{what}: {str(error)[:_MAX_ERROR_TEXT]}") from None
    return found
