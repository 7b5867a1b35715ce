import errno

import pytest

from uffdlab.errors import WitnessError
from uffdlab.witnesses.selection import WitnessSelection


def test_the_error_says_why_the_target_could_not_start_its_spinning_thread():
    asked = []

    def ask(request, deadline=5.0):
        asked.append(request.method)
        return -errno.EAGAIN

    witnesses = WitnessSelection(ask, lambda: None, lambda: 1, kernel="k", machine="m")
    with pytest.raises(WitnessError, match=r"could not start the thread.*EAGAIN") as caught, witnesses._spinning(1.0):
        pytest.fail("the block was entered without a spinning thread")
    assert caught.value.witness == "physical"
    assert asked == ["target.spin"]
