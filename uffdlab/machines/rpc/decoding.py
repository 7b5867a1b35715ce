"""Validates what comes from a guest against the types of the protocol."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from uffdlab.machines.rpc.framing import Malformed
from uffdlab.uapi.protocol.base import Method
from uffdlab.uapi.protocol.errors import ErrorAnswer
from uffdlab.uapi.protocol.notifications import NOTIFICATIONS, HelloFacts, Notification

_Answer = TypeVar("_Answer")
_MOST = 300  # characters of an error text: a part of it comes from the guest


def answer(request: Method[_Answer], raw: Any) -> _Answer:
    """Return the answer to a request.

    Raises
    ------
    Malformed
        It does not have the method's type.  The message names the method and the field.
    """
    try:
        found: _Answer = _convert(raw, type(request).answer())
        request.check(found)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"the answer to {request.method}: {_shortened(error)}") from None
    return found


def notification(method: str, params: list[Any]) -> Notification:
    """Return a notification.

    Raises
    ------
    Malformed
        There is no such notification, or it has other parameters.  The message names the field.
    """
    kind = NOTIFICATIONS.get(method)
    if kind is None:
        raise Malformed(f"there is no notification {method[:40]!r}")
    try:
        found: Notification = _convert(params, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"the notification {method}: {_shortened(error)}") from None
    return found


def error_answer(raw: Any) -> ErrorAnswer:
    """Return the error that came in place of an answer.

    Raises
    ------
    Malformed
        It is not an error of the protocol.  The message names the field.
    """
    try:
        found: ErrorAnswer = _convert(raw, ErrorAnswer)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"an error: {_shortened(error)}") from None
    return found


def facts(raw: Any) -> HelloFacts:
    """Return the facts of an agent's hello, as they were saved.

    Raises
    ------
    Malformed
        It does not have that type.  The message names the field.
    """
    try:
        found: HelloFacts = _convert(raw, HelloFacts)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"the hello: {_shortened(error)}") from None
    return found


def _convert(raw: Any, kind: Any) -> Any:
    # Without builtin_types msgspec decodes text as base64 where bytes are expected.
    return msgspec.convert(raw, kind, builtin_types=(bytes,))


def _shortened(error: Exception) -> str:
    return str(error)[:_MOST]
