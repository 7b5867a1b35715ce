"""Report that this process has run out of descriptors or memory as :class:`HostUnsupported`."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uffdlab import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Errors that are about this process or host, not about the file or program in the call.
ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@contextmanager
def reported() -> Iterator[None]:
    """Raise HostUnsupported, with what to do, in place of an OSError of :data:`ERRNOS`. Usable as a decorator."""
    try:
        yield
    except OSError as error:
        if error.errno not in ERRNOS or isinstance(error, errors.UffdlabError):
            raise
        missing, limit = ("memory", "ulimit -v, memory.max") if error.errno == errno.ENOMEM else ("files", "ulimit -n")
        raise errors.HostUnsupported(
            f"starting a machine: {error.strerror}. Close other labs, or raise the limit ({limit})", missing=missing
        ) from error
