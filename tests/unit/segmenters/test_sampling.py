from itertools import islice

import numpy as np
import torch

from segmenters.preprocessing import PreparedCase
from segmenters.sampling import spots


def prepared(channels: torch.Tensor, name: str = "a") -> PreparedCase:
    present = [int(channel) for channel in torch.unique(channels) if channel]
    return PreparedCase(
        case_id=name,
        image=torch.zeros(channels.shape),
        channels=channels,
        known=torch.tensor([True, True, True]),
        places={channel: torch.nonzero(channels == channel).int() for channel in present},
    )


def volume() -> torch.Tensor:
    channels = torch.zeros(20, 24, 28, dtype=torch.uint8)
    channels[10:, 10:, 10:] = 1
    channels[2, 3, 4] = 2
    return channels


def test_every_case_comes_equally_often_and_inside_the_volume():
    cases = [prepared(volume(), str(index)) for index in range(3)]

    drawn = list(islice(spots(cases, (8, 8, 8), 0.5, np.random.default_rng(0)), 300))

    assert all(abs(sum(spot.case == index for spot in drawn) - 100) <= 2 for index in range(3))
    starts = np.array([spot.start for spot in drawn])
    assert starts.min() >= 0
    assert (starts.max(axis=0) <= [12, 16, 20]).all()


def test_small_structure_is_centred_as_often_as_a_large_one():
    drawn = list(islice(spots([prepared(volume())], (4, 4, 4), 1.0, np.random.default_rng(0)), 400))

    small = sum(spot.start == (0, 1, 2) for spot in drawn)

    assert 150 < small < 250


def test_structure_that_few_cases_have_is_centred_as_often_as_others():
    common = volume()
    common[2, 3, 4] = 0
    cases = [prepared(volume())] + [prepared(common) for _ in range(9)]

    drawn = list(islice(spots(cases, (4, 4, 4), 1.0, np.random.default_rng(0)), 1000))

    assert 430 < sum(spot.start == (0, 1, 2) for spot in drawn) < 570
    # its one case comes for the rare structure and in a tenth of the others
    assert 490 < sum(spot.case == 0 for spot in drawn) < 610


def test_cases_without_any_structure_are_cut_anywhere():
    empty = prepared(torch.zeros(20, 24, 28, dtype=torch.uint8))

    drawn = list(islice(spots([empty], (4, 4, 4), 1.0, np.random.default_rng(0)), 50))

    assert len({spot.start for spot in drawn}) > 40


def test_volume_smaller_than_the_patch_is_centred_in_it():
    case = prepared(torch.zeros(5, 12, 16, dtype=torch.uint8))

    spot = next(spots([case], (8, 12, 20), 1.0, np.random.default_rng(0)))

    assert spot.start == (-1, 0, -2)
