"""Snapshots made of words as the kernel writes them."""

import numpy as np
import pytest

from uffdlab.snapshot import Snapshot

ABSENT = 0
WP = 0x8000000000000465  # present, accessed, dirty, uffd-wp
WRITABLE = 0x8000000000000867  # present, writable, accessed, dirty, soft-dirty


@pytest.fixture
def snapshot():
    def make(*runs, first=0, level=1, page_size=4096, **others):
        words = np.concatenate([np.full(count, word, dtype=np.uint64) for word, count in runs])
        mapped = words != 0
        words = np.where(mapped, words + (np.arange(words.size, dtype=np.uint64) + np.uint64(0x100)) * 4096, words)
        facts = {"region": "region-1", "witness": "physical", "kernel": "6.1-series"} | others
        return Snapshot(
            start=0x10_0000_0000 + first * page_size,
            page_size=page_size,
            words=words,
            levels=np.full(words.size, level, np.uint8),
            first=first,
            **facts,
        )

    return make
