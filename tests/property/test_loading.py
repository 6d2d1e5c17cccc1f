"""What a training sees depends on its seed alone: not on threads, on memory, or on what was asked before."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.records import TrainingCase
from cohort.volume import write_volume
from segmenters.config import Augmentation, SegmenterConfig
from segmenters.preprocessing import PreparedCase
from segmenters.sampling import Sampler
from segmenters.torch_segmenter import TorchSegmenter
from segmenters.training_config import Resources

PATCH = (4, 6, 8)
SHAPE = (8, 12, 16)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, affine, structures, make_image, make_label_map):
    """From resources to the hash of the weights that a training with them gives."""
    root = tmp_path_factory.mktemp("cohort")
    cases = []
    for seed in range(3):
        image, label_map = root / f"c{seed}.nii.gz", root / f"c{seed}_labels.nii.gz"
        write_volume(image, make_image(seed), affine)
        write_volume(label_map, make_label_map(seed), affine)
        names = frozenset({"liver", "spleen"} if seed else {"liver"})
        cases.append(
            TrainingCase(
                case_id=f"c{seed}", patient_id=f"c{seed}", image=image, label_map=label_map, annotated=names
            )
        )

    def fit(out: Path, resources: Resources) -> str:
        config = SegmenterConfig(
            channels=(4, 8),
            patch=PATCH,
            batch_size=2,
            dropout=0.2,
            augmentation=Augmentation(elastic_mm=1.0, flip=(True, False, True)),
            precision="float32",
            resources=resources,
        )
        segmenter = TorchSegmenter(config, "cpu")
        return segmenter.fit(cases, structures, out, seed=11, steps=5)[-1].sha256

    return fit


@settings(max_examples=12)
@given(
    loaders=st.integers(0, 5),
    cached_cases=st.integers(0, 3),
    save_every=st.integers(0, 3),
)
def test_weights_are_the_same_for_any_threads_and_any_memory(
    fitted, tmp_path_factory, loaders, cached_cases, save_every
):
    expected = fitted(tmp_path_factory.mktemp("plain"), Resources(loaders=0, cache_gib=1.0, save_every=0))
    case_gib = (5 * np.prod(SHAPE) + 12 * 400) / 2**30
    resources = Resources(loaders=loaders, cache_gib=cached_cases * case_gib, save_every=save_every)

    assert fitted(tmp_path_factory.mktemp("varied"), resources) == expected


@st.composite
def cohorts(draw: st.DrawFn) -> list[PreparedCase]:
    """Volumes of which each holds some of three structures, each structure in a corner of its own."""
    held = draw(st.lists(st.sets(st.integers(1, 3)), min_size=1, max_size=6))
    cases = []
    for index, present in enumerate(held):
        channels = torch.zeros(SHAPE, dtype=torch.uint8)
        for channel in present:
            channels[2 * channel, 3 * channel, 4 * channel] = channel
        cases.append(
            PreparedCase(
                case_id=f"c{index}",
                image=channels.float(),
                channels=channels,
                known=torch.tensor([True] * 4),
                places={channel: torch.nonzero(channels == channel).int() for channel in sorted(present)},
            )
        )
    return cases


@given(
    cases=cohorts(),
    fraction=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**40),
    count=st.integers(1, 60),
    order=st.randoms(use_true_random=False),
)
def test_patches_are_a_function_of_their_number_and_shared_out_evenly(cases, fraction, seed, count, order):
    numbers = list(range(count))
    sampler = Sampler(cases, (1, 1, 1), fraction, seed)
    drawn = {number: sampler.spot(number, np.random.default_rng(number)) for number in numbers}

    order.shuffle(numbers)
    again = Sampler(cases, (1, 1, 1), fraction, seed)
    assert all(again.spot(n, np.random.default_rng(n)) == drawn[n] for n in numbers)

    all_centred = Sampler(cases, (1, 1, 1), 1.0, seed)
    structures = sorted({channel for case in cases for channel in case.places})
    if structures:
        spots = [all_centred.spot(number, np.random.default_rng(number)) for number in range(count)]
        hit = Counter(int(cases[spot.case].channels[spot.start]) for spot in spots)
        assert set(hit) <= set(structures)
        assert max(hit.values()) - min(hit[channel] for channel in structures) <= 1
    anywhere = Sampler(cases, (1, 1, 1), 0.0, seed)
    used = Counter(anywhere.spot(number, np.random.default_rng(number)).case for number in range(count))
    assert max(used.values()) - min(used[index] for index in range(len(cases))) <= 1
