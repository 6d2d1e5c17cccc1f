"""Monotone maps: the line, the curve through bins, and what lies beyond their ends."""

import numpy as np
import pytest

from sentinel.monotone import along, fit_curve, fit_line


def test_a_line_that_would_fall_is_flat() -> None:
    raw = np.array([0.0, 1.0, 2.0])
    (_, low), (_, high) = fit_line(raw, np.array([0.6, 0.4, 0.2]), np.ones(3))
    assert low == high == pytest.approx(0.4)
    assert fit_line(np.full(3, 0.5), np.array([0.6, 0.4, 0.2]), np.ones(3))[0][1] == pytest.approx(0.4)


def test_weights_count() -> None:
    line = fit_line(np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.2, 0.8]), np.array([1.0, 3.0, 1.0]))
    assert along(line, np.array([1.0]))[0] == pytest.approx(0.35)


def test_a_curve_follows_a_bend_that_a_line_cannot() -> None:
    rng = np.random.default_rng(0)
    raw = rng.uniform(0.0, 1.0, 600)
    dsc = np.clip(np.where(raw < 0.8, 0.1, 0.1 + 4.0 * (raw - 0.8)) + rng.normal(0.0, 0.02, 600), 0.0, 1.0)
    curve = fit_curve(raw, dsc, np.ones(600))
    assert curve is not None
    assert len(curve) == 12
    assert [knot[1] for knot in curve] == sorted(knot[1] for knot in curve)
    asked = np.array([0.3, 0.7, 0.9, 0.97])
    expected = np.array([0.1, 0.1, 0.5, 0.78])
    line = fit_line(raw, dsc, np.ones(600))
    np.testing.assert_allclose(along(curve, asked), expected, atol=0.06)
    assert np.abs(along(line, asked) - expected).max() > 0.15


def test_too_few_masks_for_a_curve() -> None:
    raw = np.linspace(0.0, 1.0, 59)
    assert fit_curve(raw, raw, np.ones(59)) is None
    assert fit_curve(np.full(200, 0.5), np.linspace(0.0, 1.0, 200), np.ones(200)) is None, "all alike"


def test_beyond_the_ends_it_goes_on_and_stays_a_dsc() -> None:
    curve = ((0.2, 0.3), (0.4, 0.4), (0.6, 0.8))
    found = along(curve, np.array([-1.0, 0.0, 0.3, 0.65, 2.0]))
    np.testing.assert_allclose(found, [0.0, 0.2, 0.35, 0.9, 1.0])


def test_equal_scores_share_a_bin() -> None:
    raw = np.concatenate([np.linspace(0.0, 0.6, 60), np.full(40, 0.7), np.full(20, 0.7 + 1e-9)])
    rng = np.random.default_rng(0)
    for _ in range(20):
        curve = fit_curve(raw, rng.uniform(0.0, 1.0, 120), rng.uniform(0.1, 1.0, 120))
        assert curve is not None
        assert np.isfinite(curve).all()
        assert min(np.diff([knot[0] for knot in curve])) > 1e-3
