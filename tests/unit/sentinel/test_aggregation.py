"""What becomes of the judgements of slices that are too small to compare with what was drawn."""

import numpy as np
import pytest

from sentinel.aggregation import aggregate

NAN = float("nan")


def test_slices_without_an_overlap_are_left_out_of_the_dense_score() -> None:
    judged = np.array([[0.5, 0.5, 1.0], [0.1, NAN, NAN]], dtype=np.float32)
    assert aggregate(judged, [10, 1], "dense") == pytest.approx(0.5)
    assert aggregate(judged, [10, 1], "mean") == pytest.approx(0.3)


def test_without_any_overlap_the_mean_of_the_scores_remains() -> None:
    judged = np.array([[0.5, NAN, NAN], [0.1, NAN, NAN]], dtype=np.float32)
    assert aggregate(judged, [10, 1], "dense") == pytest.approx(0.3)
