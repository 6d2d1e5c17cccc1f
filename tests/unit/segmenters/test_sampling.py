from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from segmenters.preprocessing import IGNORED, PreparedCase
from segmenters.sampling import Sampler, Spot, make_sampler


def prepared(channels: torch.Tensor, name: str = "a", pseudo: bool = False) -> PreparedCase:
    present = [int(channel) for channel in torch.unique(channels) if channel]
    return PreparedCase(
        case_id=name,
        image=torch.zeros(channels.shape),
        channels=channels,
        known=torch.tensor([True, True, True]),
        places={channel: torch.nonzero(channels == channel).int() for channel in present},
        pseudo=pseudo,
    )


def volume() -> torch.Tensor:
    channels = torch.zeros(20, 24, 28, dtype=torch.uint8)
    channels[10:, 10:, 10:] = 1
    channels[2, 3, 4] = 2
    return channels


def draw(
    cases: list[PreparedCase], patch: tuple[int, int, int], fraction: float, count: int, seed: int = 0
) -> list[Spot]:
    sampler = Sampler(cases, patch, fraction, seed)
    return [sampler.spot(number, np.random.default_rng([seed, number])) for number in range(count)]


def test_every_case_comes_equally_often_and_inside_the_volume():
    cases = [prepared(volume(), str(index)) for index in range(3)]

    drawn = draw(cases, (8, 8, 8), 0.5, 300)

    assert all(abs(sum(spot.case == index for spot in drawn) - 100) <= 2 for index in range(3))
    starts = np.array([spot.start for spot in drawn])
    assert starts.min() >= 0
    assert (starts.max(axis=0) <= [12, 16, 20]).all()


def test_every_case_is_used_once_a_round_in_a_new_order():
    empty = torch.zeros(20, 24, 28, dtype=torch.uint8)
    drawn = draw([prepared(empty, str(index)) for index in range(7)], (4, 4, 4), 0.5, 28)

    rounds = [[spot.case for spot in drawn[first : first + 7]] for first in range(0, 28, 7)]

    assert all(sorted(once) == list(range(7)) for once in rounds)
    assert len({tuple(once) for once in rounds}) == 4


def test_small_structure_is_centred_as_often_as_a_large_one():
    drawn = draw([prepared(volume())], (4, 4, 4), 1.0, 400)

    # a patch of the large structure never starts where one centred on the only voxel of the small one does
    assert sum(spot.start == (0, 1, 2) for spot in drawn) == 200


def test_structure_that_few_cases_have_is_centred_as_often_as_others():
    common = volume()
    common[2, 3, 4] = 0
    cases = [prepared(volume())] + [prepared(common) for _ in range(9)]

    drawn = draw(cases, (4, 4, 4), 1.0, 1000)

    assert sum(spot.start == (0, 1, 2) for spot in drawn) == 500
    # its one case comes for the rare structure and in a tenth of the others
    assert Counter(spot.case for spot in drawn) == {0: 550} | dict.fromkeys(range(1, 10), 50)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.1, 10), (0.75, 75), (1.0, 100)])
def test_share_of_centred_patches_is_what_was_asked(fraction, expected):
    only = torch.zeros(20, 24, 28, dtype=torch.uint8)
    only[2, 3, 4] = 1

    drawn = draw([prepared(only)], (4, 4, 4), fraction, 100)

    assert abs(sum(spot.start == (0, 1, 2) for spot in drawn) - expected) <= 2


def test_cases_without_any_structure_are_cut_anywhere():
    empty = prepared(torch.zeros(20, 24, 28, dtype=torch.uint8))

    assert len({spot.start for spot in draw([empty], (4, 4, 4), 1.0, 50)}) > 40


def test_volume_smaller_than_the_patch_is_centred_in_it():
    case = prepared(torch.zeros(5, 12, 16, dtype=torch.uint8))

    assert draw([case], (8, 12, 20), 1.0, 1)[0].start == (-1, 0, -2)


def test_a_patch_depends_on_its_number_alone():
    cases = [prepared(volume(), str(index)) for index in range(5)]
    in_order = draw(cases, (8, 8, 8), 0.75, 60)
    backward = Sampler(cases, (8, 8, 8), 0.75, 0)

    drawn = [backward.spot(number, np.random.default_rng([0, number])) for number in reversed(range(60))]

    assert drawn[::-1] == in_order
    assert draw(cases, (8, 8, 8), 0.75, 60, seed=1) != in_order


@pytest.mark.parametrize(
    ("labelled", "pseudo", "cap", "expected"),
    [(2, 18, 0.5, 0.5), (2, 18, 0.25, 0.25), (2, 18, 1.0, 0.9), (9, 1, 0.5, 0.1), (2, 18, 0.0, 0.0)],
)
def test_pseudo_labels_never_fill_a_batch(labelled, pseudo, cap, expected):
    cases = [prepared(volume(), str(n), pseudo=n >= labelled) for n in range(labelled + pseudo)]
    sampler = make_sampler(cases, (8, 8, 8), 0.75, 0, pseudo_share=cap)

    drawn = [sampler.spot(number, np.random.default_rng(number)).case >= labelled for number in range(400)]

    assert sum(drawn) == pytest.approx(400 * expected, abs=1)
    most_of_a_batch = max(sum(drawn[first : first + 4]) for first in range(0, 400, 4))
    assert most_of_a_batch <= np.ceil(4 * expected)


def test_both_kinds_come_equally_often_and_depend_on_the_number_alone():
    cases = [prepared(volume(), str(n), pseudo=n in (1, 3, 4)) for n in range(5)]

    def drawn(order) -> dict[int, Spot]:
        sampler = make_sampler(cases, (8, 8, 8), 0.5, 0, pseudo_share=0.5)
        return {number: sampler.spot(number, np.random.default_rng([0, number])) for number in order}

    in_order = drawn(range(240))

    assert drawn(reversed(range(240))) == in_order
    counts = Counter(spot.case for spot in in_order.values())
    assert all(abs(counts[n] - 60) <= 2 for n in (0, 2))
    assert all(abs(counts[n] - 40) <= 2 for n in (1, 3, 4))


@pytest.mark.parametrize("pseudo", [True, False])
def test_cases_of_one_kind_are_sampled_as_without_kinds(pseudo):
    cases = [prepared(volume(), str(n), pseudo=pseudo) for n in range(3)]
    sampler = make_sampler(cases, (8, 8, 8), 0.5, 0, pseudo_share=0.1)

    assert [sampler.spot(n, np.random.default_rng([0, n])) for n in range(30)] == draw(
        cases, (8, 8, 8), 0.5, 30
    )


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_patches_of_a_partly_annotated_case_are_centred_on_annotated_slices(fraction):
    channels = volume()
    channels[:8] = channels[14:] = IGNORED
    present = {1: torch.nonzero(channels == 1).int()}
    case = replace(prepared(channels), places=present, annotated=torch.nonzero(channels != IGNORED).int())

    drawn = draw([case], (3, 8, 8), fraction, 60)

    assert {spot.start[0] + 1 for spot in drawn} == set(range(8, 14)) or fraction
    assert {spot.start[0] + 1 for spot in drawn} <= set(range(8, 14))


def test_a_case_whose_annotated_slices_are_lost_is_sampled_anywhere():
    case = replace(prepared(volume()), places={}, annotated=torch.zeros(0, 3, dtype=torch.int32))
    assert len({spot.start for spot in draw([case], (8, 8, 8), 0.5, 20)}) > 1
