"""The labelled cases of round 0, chosen by how their images look."""

from collections.abc import Sequence

import numpy as np

from cohort.errors import ConfigError
from cohort.features import Vectors
from cohort.seeds import derive_seed

_SMALLEST = 2.0**-64


def choose_diverse_start(
    case_ids: Sequence[str], features: Vectors, *, count: int, seed: int
) -> tuple[str, ...]:
    """Draw cases that are unlike each other, without any label.

    The first is drawn evenly, each further one in proportion to its squared distance to the nearest of those
    that are chosen. So dense regions are hit, and a single odd scan is not certain to be taken, as it would
    be by the farthest distance.

    Args:
        case_ids: to choose from.
        features: (N, F) of these, as `cohort.features.embed` gives them.
        count: how many, 1 or more.
        seed: of the campaign.

    Returns:
        Ids in the order of their choice, whatever the order of the cases.

    Raises:
        ConfigError: if there are not enough cases.

    Source: k-means++, Arthur and Vassilvitskii, 2007, section 2.2.
    """
    if not 1 <= count <= len(case_ids):
        raise ConfigError(
            f"A diverse start set of {count} cases was asked for, but {len(case_ids)} cases have a "
            "reference, are sound and are not held out; ask for at least 1 and no more than these"
        )
    order = sorted(range(len(case_ids)), key=lambda place: case_ids[place])
    names, points = [case_ids[place] for place in order], features[order].astype(np.float64)
    nearest = np.ones(len(names))
    chosen: list[int] = []
    for step in range(count):
        draws = np.array([derive_seed(seed, "diverse start", step, name) for name in names]) / 2.0**63
        noise = -np.log(-np.log(np.clip(draws, _SMALLEST, 1.0 - 2.0**-53)))
        with np.errstate(divide="ignore"):
            urgent = np.log(nearest) + noise
        if not np.isfinite(urgent).any():  # all that are left look like one that is chosen
            urgent = noise
        urgent[chosen] = -np.inf
        place = int(np.argmax(urgent))
        chosen.append(place)
        distances = np.square(points - points[place]).sum(axis=1)
        nearest = distances if step == 0 else np.minimum(nearest, distances)
        nearest[chosen] = 0.0
    return tuple(names[place] for place in chosen)
