"""What this process has not got any more, descriptors or memory, told as what the host cannot do."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uffdlab import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Errors that say nothing of the file or program that was asked for.
ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@contextmanager
def told() -> Iterator[None]:
    """Turn such an OSError into HostUnsupported, which says what to do; also as a decorator."""
    try:
        yield
    except OSError as error:
        if error.errno not in ERRNOS or isinstance(error, errors.UffdlabError):
            raise
        missing, limit = ("memory", "ulimit -v, memory.max") if error.errno == errno.ENOMEM else ("files", "ulimit -n")
        raise errors.HostUnsupported(
            f"starting a machine: {error.strerror}. Close other labs, or raise the limit ({limit})", missing=missing
        ) from error
