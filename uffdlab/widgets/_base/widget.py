"""The base of the widgets with their own JavaScript: keywords, errors, the static form."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import anywidget

from uffdlab.errors import UffdlabError, WrongArguments

_MOST_ERRORS = 20  # kept
_STYLE = {"layout", "tooltip", "tabbable"}


def check_keywords(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise WrongArguments for the first keyword in `given` that is not in `known`, with the nearest correct one."""
    right = sorted({*known, *_STYLE})
    for keyword in given:
        if keyword not in right:
            near = difflib.get_close_matches(keyword, right, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(right)}"
            raise WrongArguments(f"{name}() has no keyword {keyword!r}{hint}")


class LabWidget(anywidget.AnyWidget):
    """A widget with its own JavaScript.

    Attributes
    ----------
    errors : list of str
        The newest errors in the browser, in order.
    """

    _keywords: tuple[str, ...] = ()
    _releases: tuple[Callable[[], None], ...] = ()  # remove its current listeners
    _closing: tuple[Callable[[], None], ...] = ()  # called when it is closed

    def __init__(self, **keywords: Any) -> None:
        check_keywords(type(self).__name__, keywords, self._keywords)
        self.errors: list[str] = []
        super().__init__(**keywords)
        self.on_msg(self._message)

    def _message(self, _widget: object, content: dict[str, Any], _buffers: list[Any]) -> None:
        if "error" in content:
            self.errors = [*self.errors, str(content["error"])][-_MOST_ERRORS:]
            print(f"{type(self).__name__}, in the browser: {content['error']}", file=sys.stderr)  # noqa: T201 - the notebook shows stderr
            return
        try:
            self._handle(content)
        except UffdlabError as error:
            self.send({"failed": str(error), "id": content.get("id")})

    def _handle(self, content: dict[str, Any]) -> None:
        """Handle a request from the browser."""

    def close(self) -> None:
        """Close the widget and all its listeners."""
        for release in (*self._closing, *self._releases):
            release()
        self._releases = ()
        if self.comm is not None:  # __init__ may have failed
            self.layout.close()
        super().close()

    def fallback(self) -> dict[str, str]:
        """Return the static form, by MIME type, for pages without a live kernel."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def catch_up(self) -> None:
        """Apply the updates that wait for the event loop, before the widget is printed."""

    def _repr_mimebundle_(self, **keywords: Any) -> Any:
        self.catch_up()
        bundle = super()._repr_mimebundle_(**keywords)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, **self.fallback()}, metadata
