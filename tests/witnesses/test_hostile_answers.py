"""Whatever a hostile target answers about itself and its pages, only an UffdlabError is raised."""

import contextlib
import copy
import random
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from uffdlab.errors import MachineLost, UffdlabError
from uffdlab.machines.rpc import decoding
from uffdlab.machines.rpc.framing import Malformed
from uffdlab.uapi.protocol.target import MapMemory
from uffdlab.witnesses import selection
from uffdlab.witnesses.selection import WitnessSelection

START = 0x10_0000_0000
JUNK = (
    *(None, True, 0, 1, -1, -4096, 4096, 1 << 56, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 70, 1.5, float("nan")),
    *("x", b"x", bytes(24), bytes(32), b"\xff" * 32, b"\xff" * 96, [], [1, 2], {}, {"why_not": ""}, {"answered": -1}),
    *({"answered": 1 << 40}, {"answered": "x"}, {"missing": 1}),
)


def valid_answer(method, rng):
    """Return an answer that a target could send for four pages; the contents of the entries are random."""
    entry = rng.getrandbits(64)
    return {
        "target.beacon": {
            "address": 0x8_0000_0000,
            "pid": 1,
            "tracks_soft_dirty": True,
            "scan": {"answered": 0x3FF},
            "entries": {"why_not": ""},
        },
        "target.pagemap": {"entries": rng.randbytes(32), "hugetlb": False, "vma_soft_dirty": False, "time_ns": 1},
        "target.scan": {
            "runs": np.array(_runs(rng), dtype="<u8").tobytes(),
            "vma_soft_dirty": False,
            "time_ns": 1,
        },
        "target.entries": {"entries": struct.pack("<QII", entry, 1, 0) * 4, "time_ns": 1},
        "target.map": {"number": 1, "start": START, "alias": 0x20_0000_0000},
        "target.spin": 0,
        "target.spin_stop": None,
    }[method]


def _runs(rng):
    # The runs of four pages, or random ones: they overlap, are elsewhere, are unaligned, or end before they begin.
    if rng.random() < 0.5:
        return [START, START + 4 * 4096, rng.getrandbits(64)]
    edges = [0, START - 4096, START, START + 1, START + 4096, START + 4 * 4096, START + 8 * 4096, (1 << 64) - 1]
    return [rng.choice([*edges, rng.getrandbits(64)]) for _ in range(3 * rng.randrange(5))]


def damaged(answer, rng):
    """Return other data in place of the answer, or of some of its fields."""
    if not isinstance(answer, dict) or rng.random() < 0.2:
        return rng.choice(JUNK)
    answer = copy.deepcopy(answer)
    for _ in range(rng.randrange(1, 3)):
        name = rng.choice([*answer, "at", "more"])
        if rng.random() < 0.2:
            answer.pop(name, None)
        else:
            answer[name] = rng.choice(JUNK)
    return answer


class HostileTarget:
    """A target whose answers are decoded like every answer from the wire."""

    def __init__(self, rng):
        self.rng = rng

    def ask(self, request, **_):
        """Return the decoded answer, damaged or not."""
        raw = valid_answer(request.method, self.rng)
        try:
            return decoding.answer(request, damaged(raw, self.rng) if self.rng.random() < 0.5 else raw)
        except Malformed as error:
            raise MachineLost(str(error)) from error


class Ram:
    """Guest RAM with random content."""

    def __init__(self, rng):
        self.entries = np.frombuffer(rng.randbytes(64 * 4096), dtype=np.uint64).reshape(64, 512)

    def ram(self):
        """Return the entries, and the number of frames below 4 GiB."""
        return self.entries, 64

    def root_candidates(self):
        """Return one candidate, whose page tables are random."""
        return [(4096, 4)]

    @contextlib.contextmanager
    def paused(self):
        """Do nothing."""
        yield


def is_answered(rng, name):
    """Read four pages with a witness; return False if it raises an UffdlabError."""
    target = HostileTarget(rng)
    witnesses = WitnessSelection(target.ask, lambda: Ram(rng), lambda: 1, kernel="k", machine="m")
    witnesses.new_target(bytes(32))
    try:
        mapped = target.ask(MapMemory("shmem", 4, 4096))
        mapping = SimpleNamespace(name="r", start=mapped.start, pages=4, page_size=4096, lost=None)
        if name in (None, "physical"):
            witnesses.witness("physical")._finder._deadline = 0.0
        where = SimpleNamespace(mapping=mapping, first=0, count=4)
        snapshot, _ = witnesses.read(where, name)
        str(snapshot), snapshot.frames(), snapshot.to_csv(), snapshot.to_dict()
    except UffdlabError:
        return False
    return True


@pytest.mark.parametrize("name", [None, *selection.NAMES])
@pytest.mark.parametrize("rounds", [pytest.param(150, id="few"), pytest.param(4000, id="many", marks=pytest.mark.long)])
def test_only_uffdlab_errors_are_raised(name, rounds, monkeypatch):
    monkeypatch.setattr(selection, "_MIN_PAGES_FROM_RAM", 0)
    answered = sum(is_answered(random.Random(seed), name) for seed in range(rounds))
    assert answered < rounds
    assert answered > 0 or name == "physical"
