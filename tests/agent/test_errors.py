"""The error of an ioctl says what the kernel said, whatever else fails meanwhile."""

import errno

import pytest

from uffdlab.errors import IoctlError, TargetLost
from uffdlab.uapi.protocol.target import CallIoctl


def test_the_first_error_of_a_lab_asks_nothing_more_of_its_target(mortal_lab, monkeypatch):
    region = mortal_lab.map(pages=4)
    uffd = mortal_lab.userfaultfd()
    uffd.register(region, "missing")
    answered, asked = mortal_lab._connection.ask, []

    def only_ioctls(request, **keywords):
        asked.append(type(request))
        if not isinstance(request, CallIoctl):
            raise TargetLost(f"{request.method} never comes back")
        return answered(request, **keywords)

    monkeypatch.setattr(mortal_lab._connection, "ask", only_ioctls)
    uffd.zeropage(region[0])
    with pytest.raises(IoctlError, match=r"\(page 0\) → EEXIST: a page of the range is mapped") as caught:
        uffd.zeropage(region[0])
    assert (caught.value.errno, asked) == (errno.EEXIST, [CallIoctl, CallIoctl])
