"""What all of the widgets with JavaScript of their own share: keywords, errors, the static form."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import anywidget

from uffdlab.errors import UffdlabError

_MOST_ERRORS = 20  # kept
_STYLE = {"layout", "tooltip", "tabbable"}


def check_keywords(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a TypeError for the first keyword in `given` that is not in `known`, naming the nearest right one."""
    right = sorted({*known, *_STYLE})
    for keyword in given:
        if keyword not in right:
            near = difflib.get_close_matches(keyword, right, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(right)}"
            raise TypeError(f"{name}() has no keyword {keyword!r}{hint}")


class LabWidget(anywidget.AnyWidget):
    """A widget with JavaScript of its own.

    Attributes
    ----------
    errors : list of str
        What went wrong in the browser, newest last.
    """

    _keywords: tuple[str, ...] = ()
    _releases: tuple[Callable[[], None], ...] = ()  # what it listens to now
    _closing: tuple[Callable[[], None], ...] = ()  # what ends with it

    def __init__(self, **keywords: Any) -> None:
        check_keywords(type(self).__name__, keywords, self._keywords)
        self.errors: list[str] = []
        super().__init__(**keywords)
        self.on_msg(self._message)

    def _message(self, _widget: object, content: dict[str, Any], _buffers: list[Any]) -> None:
        if "error" in content:
            self.errors = [*self.errors, str(content["error"])][-_MOST_ERRORS:]
            print(f"{type(self).__name__}, in the browser: {content['error']}", file=sys.stderr)  # noqa: T201 - its place
            return
        try:
            self._asked(content)
        except UffdlabError as error:
            self.send({"failed": str(error), "id": content.get("id")})

    def _asked(self, content: dict[str, Any]) -> None:
        """Answer what the page asks."""

    def close(self) -> None:
        """Take the widget away, with every listener it has."""
        for release in (*self._closing, *self._releases):
            release()
        self._releases = ()
        if self.comm is not None:  # __init__ may have failed
            self.layout.close()
        super().close()

    def fallback(self) -> dict[str, str]:
        """Give what a page without a live kernel shows, by MIME type."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def catch_up(self) -> None:
        """Do now what waits for the event loop: whoever prints a page does not come back later."""

    def _repr_mimebundle_(self, **keywords: Any) -> Any:
        self.catch_up()
        bundle = super()._repr_mimebundle_(**keywords)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, **self.fallback()}, metadata
