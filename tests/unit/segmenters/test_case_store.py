from dataclasses import replace

import numpy as np
import pytest
import torch

from cohort.errors import DataError
from cohort.slabs import Slab
from segmenters.case_store import MappedVolume, prepared_cases
from segmenters.preprocessing import PreparedCase, prepare_training_case

SPACING = (3.0, 1.0, 0.5)
WHOLE = (slice(None),) * 3
CASE_GIB = 5 * 8 * 12 * 16 / 2**30


@pytest.fixture
def prepare(structures, config):
    def run(case):
        rng = np.random.default_rng(0)
        return prepare_training_case(case, structures[:2], structures, SPACING, config, rng)

    return run


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def cases(write_case):
    doubtful = replace(write_case("b", 1, ["spleen"]), pseudo=True, weights={"spleen": 0.3})
    partly = replace(write_case("c", 2), pseudo=True, slabs=(Slab(first=0, last=3),))
    return [write_case("a", 0), doubtful, partly]


def same(stored: PreparedCase, expected: PreparedCase) -> bool:
    return (
        stored.case_id == expected.case_id
        and torch.equal(stored.image[WHOLE], expected.image[WHOLE])
        and torch.equal(stored.channels[WHOLE], expected.channels[WHOLE])
        and torch.equal(stored.known, expected.known)
        and list(stored.places) == list(expected.places)
        and all(np.array_equal(stored.places[c], expected.places[c]) for c in expected.places)
        and stored.pseudo is expected.pseudo
        and (stored.weight is None) is (expected.weight is None)
        and (stored.weight is None or torch.equal(stored.weight, expected.weight))
        and (stored.annotated is None) is (expected.annotated is None)
        and (stored.annotated is None or np.array_equal(stored.annotated, expected.annotated))
    )


@pytest.mark.parametrize("threads", [0, 2])
def test_cases_beyond_the_cache_lie_on_disk_and_are_the_same(cases, prepare, store, threads):
    expected = [prepare(case) for case in cases]

    # two fit with their remembered places, three do not
    with prepared_cases(cases, prepare, store, cache_gib=2.9 * CASE_GIB, threads=threads) as found:
        assert sum(isinstance(case.image, MappedVolume) for case in found) in (1, 2)
        assert all(same(stored, one) for stored, one in zip(found, expected, strict=True))
        files = list(store.iterdir())
        assert files
        assert all(path.name.startswith(".prepared_") for path in files)

    assert list(store.iterdir()) == []


def test_everything_stays_in_memory_where_it_fits(cases, prepare, tmp_path):
    with prepared_cases(cases, prepare, tmp_path / "new", cache_gib=1.0, threads=1) as found:
        assert all(isinstance(case.image, torch.Tensor) for case in found)
        assert not (tmp_path / "new").exists()


def test_a_case_without_a_structure_can_be_stored(write_case, prepare, tmp_path):
    empty = write_case("e", 0, labels=np.zeros((8, 12, 16), dtype=np.uint8))

    with prepared_cases([empty], prepare, tmp_path, cache_gib=0.0, threads=0) as found:
        assert found[0].places == {}
        assert not found[0].channels[WHOLE].any()


def test_a_box_is_a_copy_of_its_voxels(tmp_path):
    voxels = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    np.save(tmp_path / "v.npy", voxels)
    mapped = MappedVolume(tmp_path / "v.npy")

    box = mapped[slice(0, 2), slice(1, 3), slice(2, 4)]
    box += 1.0

    assert mapped.shape == (2, 3, 4)
    assert torch.equal(box, torch.from_numpy(voxels[:, 1:3, 2:4] + 1.0))
    assert torch.equal(mapped[WHOLE], torch.from_numpy(voxels))


def test_files_go_whatever_happens_and_leftovers_too(cases, prepare, store):
    for name in (".prepared_00007_image.npy", "..prepared_00007_image.npy.1234.tmp"):
        (store / name).write_bytes(b"of a training that was killed")

    with (
        pytest.raises(KeyError, match="stop"),
        prepared_cases(cases, prepare, store, cache_gib=0.0, threads=0),
    ):
        assert not (store / ".prepared_00007_image.npy").exists()
        raise KeyError("stop")

    assert list(store.iterdir()) == []


@pytest.mark.parametrize("threads", [0, 2])
def test_a_broken_case_is_named_and_nothing_is_left(cases, prepare, tmp_path, threads):
    cases[1].image.write_bytes(b"\x1f\x8b broken")

    with (
        pytest.raises(DataError, match=r"b\.nii\.gz cannot be read"),
        prepared_cases(cases, prepare, tmp_path / "w", cache_gib=0.0, threads=threads),
    ):
        pass

    assert not list((tmp_path / "w").glob("*"))
