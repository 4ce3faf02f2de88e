"""Fitted exponents are those of the power laws that values were drawn from."""

import numpy as np
import pytest

from nthsim.scaling.exponents import Estimate, growth, power_law
from nthsim.scaling.quantity import Quantity

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
    assert -1.0 in power_law(SIZES, values, signed=True)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_means_that_may_be_zero_have_neither_exponent_nor_growth(at):
    values = _drawn(-1.0, 0, seeds=21)
    values[at] -= values[at].mean()
    values[at] += 2.5 * values[at].std(ddof=1) / np.sqrt(21)  # of a t-test at 99%, 2.85 are sure
    assert np.isnan(power_law(SIZES, values, signed=True).value)
    known = growth(values, signed=True).value
    assert np.isnan(known) if at in (0, 3) else known > 0


def test_means_of_both_signs_have_neither_exponent_nor_growth():
    values = _drawn(-1.0, 0, seeds=21)
    values[3] *= -1
    assert np.isnan(power_law(SIZES, values, signed=True).value)
    assert np.isnan(growth(values, signed=True).value)


def test_growth_of_means_is_never_of_both_signs():
    known = 0
    for seed in range(40):
        # Heavy tails, and means about four standard errors from zero.
        values = np.random.default_rng(seed).standard_t(3, (2, 12)) + 2.0
        found = growth(values, signed=True)
        if not np.isnan(found.value):
            known += 1
            assert 0 < found.low <= found.high < np.inf, seed
    assert 0 < known < 40


def test_mean_of_one_seed_has_no_exponent():
    assert np.isnan(power_law(SIZES, 1.0 / SIZES[:, None], signed=True).value)


def test_growth_from_zero_or_from_infinity_is_none():
    for first in (0.0, np.nan):
        assert np.isnan(growth(np.array([[first] * 3, [1.0] * 3])).value)


def test_slopes_are_those_between_neighbouring_sizes():
    values = np.array([8.0, 4.0, 1.0, 1.0])[:, None] * np.ones((4, 3))
    np.testing.assert_allclose(Quantity(SIZES, values, -1).slopes(), [-1.0, -2.0, 0.0], atol=1e-14)
    values[2] = np.nan  # blown up
    np.testing.assert_allclose(Quantity(SIZES, values, -1).slopes(), [-1.0, np.nan, np.nan])


def test_fit_to_some_sizes_is_that_of_them_alone():
    values = _drawn(-1.0, 0)
    found = Quantity(SIZES, values, -1).exponent((128, 32, 64))
    alone = power_law(SIZES[1:], values[1:])
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)
    assert found.value != power_law(SIZES, values).value


@pytest.mark.parametrize(
    ("sizes", "said"),
    [((16,), "16"), ((16, 16), "16"), ((16, 48), "16, 48")],
)
def test_sizes_of_a_fit_are_two_or_more_of_those_that_were_measured(sizes, said):
    sentence = f"^`sizes` must be two or more of 16, 32, 64, 128, but is {said}\\.$"
    with pytest.raises(ValueError, match=sentence):
        Quantity(SIZES, _drawn(-1.0, 0), -1).exponent(sizes)


def test_interval_excludes_what_is_outside_and_nothing_if_unknown():
    found = Estimate(-1.38, -1.80, -1.02)
    assert [found.excludes(power) for power in (-2, -1.5, -1)] == [True, False, True]
    assert not Estimate(-1.38, np.nan, np.nan).excludes(-2)


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
