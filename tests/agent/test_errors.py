"""The error of an ioctl says what the kernel said, whatever else fails meanwhile."""

import errno

import pytest

from uffdlab.errors import IoctlError, TargetLost


def test_the_first_error_of_a_lab_asks_nothing_more_of_its_target(mortal_lab, monkeypatch):
    region = mortal_lab.map(pages=4)
    uffd = mortal_lab.userfaultfd()
    uffd.register(region, "missing")
    answered, asked = mortal_lab._connection.target_call, []

    def only_ioctls(method, *params, **keywords):
        asked.append(method)
        if method != "ioctl":
            raise TargetLost(f"{method} never comes back")
        return answered(method, *params, **keywords)

    monkeypatch.setattr(mortal_lab._connection, "target_call", only_ioctls)
    uffd.zeropage(region[0])
    with pytest.raises(IoctlError, match=r"\(page 0\) → EEXIST: a page of the range is mapped") as caught:
        uffd.zeropage(region[0])
    assert (caught.value.errno, asked) == (errno.EEXIST, ["ioctl", "ioctl"])
