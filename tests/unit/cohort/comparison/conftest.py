"""Arms whose curves are known."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cohort.comparison.runs import ArmRuns


@pytest.fixture
def make_runs() -> Callable[..., ArmRuns]:
    """Curves (S, R) -> runs of an arm on five cases of one structure, whose DSC scatters around the curve.

    Args of the callable:
        seeds: of the runs; spent: (R,) or (S, R) cases; scatter: of the cases' DSC.
    """

    def make(
        arm: str,
        curves: Sequence[Sequence[float]],
        *,
        seeds: Sequence[int] | None = None,
        spent: Sequence[object] = (4.0, 8.0, 12.0),
        scatter: float = 0.0,
    ) -> ArmRuns:
        values = np.array(curves)
        around = scatter * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
        return ArmRuns(
            arm=arm,
            seeds=tuple(range(len(values)) if seeds is None else seeds),
            cases=("a", "b", "c", "d", "e"),
            structures=("liver",),
            spent={"cases": np.broadcast_to(np.array(spent, dtype=np.float64), values.shape)},
            dsc=(values[:, :, None] + around)[..., None],
        )

    return make
