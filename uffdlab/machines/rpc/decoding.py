"""What comes from a guest, held against the description of the wire; nothing else of it is let in."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from uffdlab.machines.rpc.framing import Malformed
from uffdlab.uapi.protocol import NOTIFICATIONS, ErrorAnswer, HelloFacts, Method, Notification

_Answer = TypeVar("_Answer")
_MOST = 300  # characters of what is wrong: a part of it is the guest's


def answer(request: Method[_Answer], raw: Any) -> _Answer:
    """Return the answer to a request.

    Raises
    ------
    Malformed
        It is none; names the method and the field.
    """
    try:
        found: _Answer = _convert(raw, type(request).answer())
        request.check(found)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"the answer to {request.method}: {_words(error)}") from None
    return found


def notification(method: str, params: list[Any]) -> Notification:
    """Return a notification.

    Raises
    ------
    Malformed
        There is none of this name, or it has other parameters; names the field.
    """
    kind = NOTIFICATIONS.get(method)
    if kind is None:
        raise Malformed(f"there is no notification {method[:40]!r}")
    try:
        found: Notification = _convert(params, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"the notification {method}: {_words(error)}") from None
    return found


def error_answer(raw: Any) -> ErrorAnswer:
    """Return what came in place of an answer.

    Raises
    ------
    Malformed
        It is no error; names the field.
    """
    try:
        found: ErrorAnswer = _convert(raw, ErrorAnswer)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"an error: {_words(error)}") from None
    return found


def facts(raw: Any) -> HelloFacts:
    """Return what an agent has said of itself, as it was kept.

    Raises
    ------
    Malformed
        It is something else; names the field.
    """
    try:
        found: HelloFacts = _convert(raw, HelloFacts)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(f"the hello: {_words(error)}") from None
    return found


def _convert(raw: Any, kind: Any) -> Any:
    # Without builtin_types a text is taken for bytes, in base64.
    return msgspec.convert(raw, kind, builtin_types=(bytes,))


def _words(error: Exception) -> str:
    return str(error)[:_MOST]
