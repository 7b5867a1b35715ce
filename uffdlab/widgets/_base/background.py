"""What asks the lab, on threads of its own: a guest that is slow to answer keeps no notebook waiting.

The threads end with their work; results come by the notebook kernel's event loop.  Where there is none, in a script or
a test, all is done at once on the caller's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from uffdlab.widgets._base import event_loop

_Seen = TypeVar("_Seen")


class Looks(Generic[_Seen]):
    """Looks at the lab, one at a time: what is asked for during one is one more look after it.

    Parameters
    ----------
    look : callable
        Asks the lab.  On any thread.
    show : callable
        Takes what `look` gave, on the event loop.  What is older than what was shown already is left out.
    failed : callable
        Takes what `look` raised, on the event loop.
    """

    def __init__(
        self, look: Callable[[], _Seen], show: Callable[[_Seen], None], failed: Callable[[Exception], None]
    ) -> None:
        self._look, self._show, self._failed = look, show, failed
        self._asked = self._shown = 0  # numbers of looks
        self._busy = self._again = self._closed = False
        self._inside = threading.local()

    @property
    def here(self) -> bool:
        """Whether the caller is inside of such a look."""
        return getattr(self._inside, "looks", False)

    @property
    def busy(self) -> bool:
        """Whether a look is on its way."""
        return self._busy

    def ask(self) -> None:
        """Look soon.  Called on the event loop."""
        if self._closed:
            return
        if event_loop.running() is None:
            self.now()
        elif self._busy:
            self._again = True
        else:
            self._busy = True
            self._asked += 1
            threading.Thread(target=self._work, args=(self._asked,), name="uffdlab look", daemon=True).start()

    def now(self) -> None:
        """Look on this thread and show it."""
        if self._closed:
            return
        self._again = False
        self._asked += 1
        self._looked(self._asked)()

    def forget(self) -> None:
        """Do not show what is on its way; it is of something else."""
        self._shown = self._asked

    def close(self) -> None:
        """Show nothing any more, also of a look that is on its way."""
        self._closed = True

    def _work(self, number: int) -> None:
        done = self._looked(number)

        def deliver() -> None:
            self._busy = False
            done()
            if self._again:
                self._again = False
                self.ask()

        event_loop.soon(deliver)

    def _looked(self, number: int) -> Callable[[], None]:
        self._inside.looks = True
        try:
            seen = self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told where the user looks
            failure = error
            return lambda: self._tell(number, lambda: self._failed(failure))
        finally:
            self._inside.looks = False
        return lambda: self._tell(number, lambda: self._show(seen))

    def _tell(self, number: int, action: Callable[[], None]) -> None:
        if not self._closed and number > self._shown:
            self._shown = number
            action()


def errand(action: Callable[[], _Seen], done: Callable[[_Seen], None]) -> threading.Thread | None:
    """Do something that may take its time, then have `done` called with what it gave, on the event loop.

    `action` raises nothing.

    Returns
    -------
    Thread or None
        None if it is done already.
    """
    if event_loop.running() is None:
        done(action())
        return None

    def work() -> None:
        came = action()
        event_loop.soon(lambda: done(came))

    thread = threading.Thread(target=work, name="uffdlab errand", daemon=True)
    thread.start()
    return thread
