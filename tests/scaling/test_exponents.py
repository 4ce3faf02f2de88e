"""Fitted exponents are those of the power laws that values were drawn from."""

import numpy as np
import pytest

from nthsim.scaling.exponents import error_exponent, growth, kernel_exponent, power_law

SIZES = np.array([16, 32, 64, 128])


def _drawn(exponent: float, seed: int, seeds: int = 40) -> np.ndarray:
    """A power law times a log-normal factor, whose median is one."""
    noise = np.exp(np.random.default_rng(seed).normal(0.0, 0.7, (4, seeds)))
    return 3.0 * SIZES[:, None] ** exponent * noise


@pytest.mark.parametrize("exponent", [-2.0, -0.5, 0.0, 1.0])
def test_exponent_of_a_pure_power_law_is_exact(exponent):
    found = power_law(SIZES, 3.0 * SIZES[:, None] ** exponent * np.ones((4, 5)))
    assert found.value == pytest.approx(exponent, abs=1e-12)
    assert found.low == pytest.approx(exponent, abs=1e-12)
    assert found.high == pytest.approx(exponent, abs=1e-12)


def test_intervals_cover_the_exponent_as_often_as_they_say():
    hits = sum(-1.0 in power_law(SIZES, _drawn(-1.0, seed)) for seed in range(50))
    # Of 50 at 95%, 42 and fewer have a probability below 0.005; for medians the bootstrap errs to
    # the side of more.
    assert hits > 42


def test_intervals_are_no_wider_than_the_scatter_of_exponents():
    fits = [power_law(SIZES, _drawn(-1.0, seed)) for seed in range(25)]
    widths = np.mean([fit.high - fit.low for fit in fits])
    scatter = np.std([fit.value for fit in fits])
    assert 3 < widths / scatter < 6  # about 2 x 1.96 for a normal distribution


def test_means_may_be_negative():
    values = -_drawn(-1.0, 0, seeds=400)
    assert -1.0 in power_law(SIZES, values, statistic=np.mean)


def test_growth_is_the_factor_from_first_to_last():
    values = np.array([[1.0, 2.0, 3.0], [9.0, 9.0, 9.0], [20.0, 10.0, 30.0]])
    found = growth(values)
    assert found.value == 10.0
    assert found.low <= 10.0 <= found.high


def test_what_blew_up_counts_as_infinitely_large():
    values = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, np.nan], [np.nan, 4.0, np.nan]])
    sizes = SIZES[:3]
    assert power_law(sizes, values).value == pytest.approx(1.0)  # the third median is infinite
    assert growth(values).value == np.inf
    assert np.isnan(power_law(sizes, np.full((3, 3), np.nan)).value)


def test_one_seed_has_no_interval():
    found = power_law(SIZES, 1.0 / SIZES[:, None])
    assert found.value == pytest.approx(-1.0)
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_zeros_have_no_exponent():
    assert np.isnan(power_law(SIZES, np.zeros((4, 5))).value)


def test_intervals_are_the_same_each_time():
    one, other = (power_law(SIZES, _drawn(-1.0, 3)) for _ in range(2))
    assert (one.low, one.high) == (other.low, other.high)


def test_predicted_exponents_are_those_of_the_theory():
    assert [kernel_exponent(r) for r in range(2, 7)] == [0, -1, -1, -2, -2]
    assert [error_exponent(p) for p in range(2, 6)] == [-1, -1, -2, -2]
