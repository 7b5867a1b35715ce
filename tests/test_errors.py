"""Errors print an errno by its name."""

import errno

from uffdlab.errors import IoctlError, errno_name


def test_an_errno_has_a_name():
    assert [errno_name(error) for error in (0, errno.EINVAL, 4095)] == ["ok", "EINVAL", "4095"]
    assert str(IoctlError("UFFDIO_WAKE(page 3)", errno.EINVAL, "why")) == "UFFDIO_WAKE(page 3) → EINVAL: why"
