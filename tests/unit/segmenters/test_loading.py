import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from segmenters.case_store import open_stored, prepared_cases
from segmenters.config import Augmentation
from segmenters.loading import Patches, Share, loaded
from segmenters.preprocessing import prepare_training_case

SPACING = (3.0, 1.0, 0.5)


@pytest.fixture
def prepared(write_case, structures, config):
    return [
        prepare_training_case(
            write_case(name, seed), structures[:2], structures, SPACING, config, np.random.default_rng(0)
        )
        for seed, name in enumerate("ab")
    ]


@pytest.fixture
def varied(config):
    bending = Augmentation(spatial_probability=0.7, elastic_mm=1.0, flip=(False, True, False))
    return replace(config, patch=(6, 8, 10), augmentation=bending)


def equal(first, second) -> bool:
    names = ("images", "channels", "known")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


def test_batches_repeat_with_the_seed(prepared, config):
    first, again = (Patches(prepared, SPACING, config, 3) for _ in range(2))
    other = Patches(prepared, SPACING, config, 4)

    batch = first.batch(range(2))
    assert batch.images.shape == (2, 1, 8, 12, 16)
    assert batch.channels.dtype == torch.int64
    assert batch.known.tolist() == [[True, True, True]] * 2
    later = again.batch(range(2, 4))
    assert equal(batch, again.batch(range(2)))
    assert equal(first.batch(range(2, 4)), later)
    assert not torch.equal(batch.images, later.images)
    assert not torch.equal(batch.images, other.batch(range(2)).images)


def test_a_patch_is_the_same_in_any_batch(prepared, varied):
    patches = Patches(prepared, SPACING, varied, 3)

    together = patches.batch([4, 5, 6])
    alone = patches.batch([5])

    assert torch.equal(together.images[1:2], alone.images)
    assert torch.equal(together.channels[1:2], alone.channels)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_give_what_none_gives(prepared, varied, threads):
    share = Share(batch_size=2, accumulate=2)
    patches = Patches(prepared, SPACING, varied, 3)

    plain = list(loaded(patches, share, range(1, 6), 0, pin=False))
    ahead = list(loaded(patches, share, range(1, 6), threads, pin=False))

    assert [len(batches) for batches in ahead] == [2] * 5
    assert all(
        equal(first, second)
        for one, two in zip(plain, ahead, strict=True)
        for first, second in zip(one, two, strict=True)
    )


def test_loading_goes_on_in_the_middle(prepared, varied):
    share = Share(batch_size=2, accumulate=1)
    patches = Patches(prepared, SPACING, varied, 3)

    whole = list(loaded(patches, share, range(1, 6), 1, pin=False))
    rest = list(loaded(patches, share, range(4, 6), 1, pin=False))

    assert [equal(a[0], b[0]) for a, b in zip(whole[3:], rest, strict=True)] == [True, True]


def test_shares_of_processes_make_the_whole_batch():
    whole = Share(batch_size=6, accumulate=2).numbers(3)
    parts = [Share(batch_size=6, accumulate=2, rank=rank, processes=3).numbers(3) for rank in range(3)]

    for turn, numbers in enumerate(whole):
        assert [number for part in parts for number in part[turn]] == list(numbers)
    assert whole == [range(24, 30), range(30, 36)]


class Counted:
    """Patches that count how many were made; those after the first few fail."""

    def __init__(self, patches: Patches, good: int) -> None:
        self.patches, self.good, self.made = patches, good, 0
        self.lock = threading.Lock()

    def batch(self, numbers):
        with self.lock:
            self.made += 1
        if numbers.start >= self.good:
            raise ValueError(f"no patch {numbers.start}")
        return self.patches.batch(numbers)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_batches_wait_than_are_allowed(prepared, config, threads):
    counted = Counted(Patches(prepared, SPACING, config, 3), 1000)
    stream = loaded(counted, Share(batch_size=2, accumulate=1), range(1, 101), threads, pin=False)

    next(stream)
    stream.close()

    assert counted.made <= threads + 1


def test_failure_in_a_thread_is_raised(prepared, config):
    counted = Counted(Patches(prepared, SPACING, config, 3), 4)
    stream = loaded(counted, Share(batch_size=2, accumulate=1), range(1, 101), 2, pin=False)

    with pytest.raises(ValueError, match="no patch 4"):
        list(stream)


def test_memory_and_disk_give_the_same_patches(write_case, structures, varied, tmp_path):
    cases = [write_case(name, seed) for seed, name in enumerate("ab")]

    def prepare(case):
        rng = np.random.default_rng(0)
        return prepare_training_case(case, structures[:2], structures, SPACING, varied, rng)

    with (
        prepared_cases(cases, prepare, tmp_path / "1", cache_gib=1.0, threads=0) as in_memory,
        prepared_cases(cases, prepare, tmp_path / "2", cache_gib=0.0, threads=2) as on_disk,
    ):
        expected = Patches(in_memory, SPACING, varied, 3).batch(range(12))
        assert equal(Patches(on_disk, SPACING, varied, 3).batch(range(12)), expected)
        opened = open_stored(tmp_path / "2", 2)
        assert equal(Patches(opened, SPACING, varied, 3).batch(range(12)), expected)
