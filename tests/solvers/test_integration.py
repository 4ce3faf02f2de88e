"""The integrator on small systems with known solutions."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from nthsim.solvers.auto import Auto
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.integration import integrate
from nthsim.solvers.system import AbstractSystem


class TwoScales(AbstractSystem):
    """A small level that oscillates beside a large one that decays; each its own level."""

    small: float = 1e-6
    large: int = 1000
    rate: Array = eqx.field(default_factory=lambda: jnp.array(1.0))

    def initial(self):
        return self.small * jnp.array([1.0, 0.0]), jnp.ones(self.large)

    def field(self, state):
        (x, v), large = state
        return jnp.stack([5 * v, -5 * x]), -self.rate * large

    def sizes(self, state):
        return jnp.stack([jnp.sqrt(jnp.mean(level**2)) for level in state])

    def scales(self):
        return self.sizes(self.initial())

    def outputs(self, state):
        return {"small": state[0], "large": state[1]}

    def escaped(self, state):
        return jnp.array(False)


class Growth(AbstractSystem):
    """y' = y^power from y = 1: exponential for power 1, y = 1/(1 - t) for power 2."""

    power: Array

    def initial(self):
        return jnp.ones(1)

    def field(self, state):
        return state**self.power

    def sizes(self, state):
        return jnp.abs(state)

    def scales(self):
        return self.sizes(self.initial())

    def outputs(self, state):
        return {"y": state}

    def escaped(self, state):
        return ~(jnp.abs(state[0]) < 1e8)


class Valley(AbstractSystem):
    """y' = 2 below y = 1 and -1 above: the solution arrives at t = 1/2 and slides along."""

    def initial(self):
        return jnp.zeros(1)

    def field(self, state):
        return jnp.where(state < 1.0, 2.0, -1.0)

    def sizes(self, state):
        return jnp.abs(state)

    def scales(self):
        return self.sizes(self.initial())

    def outputs(self, state):
        return {"y": state}

    def escaped(self, state):
        return jnp.array(False)


class Pulse(AbstractSystem):
    r"""The clock s' = 1 and $y' = e^{-((s - 1)/w)^2}/w$: smooth, idle, then sudden."""

    width: float = 0.03

    def initial(self):
        return jnp.array([0.0, 1.0])

    def field(self, state):
        pulse = jnp.exp(-(((state[0] - 1.0) / self.width) ** 2)) / self.width
        return jnp.stack([jnp.ones_like(pulse), pulse])

    def sizes(self, state):
        return jnp.abs(state)

    def scales(self):
        return self.sizes(self.initial())

    def outputs(self, state):
        return {"y": state[1]}

    def escaped(self, state):
        return jnp.array(False)


TS = np.linspace(0.0, 3.0, 7)


@pytest.mark.parametrize("solver", [Explicit(rtol=1e-8), Auto(rtol=1e-8), Auto(rtol=1e-4)])
def test_smallest_level_is_as_accurate_as_the_largest(solver):
    solution = integrate(TwoScales(), TS, solver)
    # The global error may exceed the local tolerance by about the number of steps.
    tolerance = 100 * solver.rtol
    small = 1e-6 * np.stack([np.cos(5 * TS), -np.sin(5 * TS)], 1)
    np.testing.assert_allclose(solution.records["small"], small, atol=1e-6 * tolerance)
    np.testing.assert_allclose(
        solution.records["large"], np.tile(np.exp(-TS)[:, None], 1000), rtol=tolerance
    )


def test_error_falls_with_the_tolerance():
    errors = []
    for rtol in (1e-4, 1e-7, 1e-10):
        record = integrate(TwoScales(), TS, Explicit(rtol=rtol)).records["small"]
        errors.append(np.abs(record[:, 0] - 1e-6 * np.cos(5 * TS)).max())
    assert errors[0] > 100 * errors[1] > 10_000 * errors[2]


def test_closely_spaced_save_times_do_not_shrink_the_planned_steps():
    few = integrate(TwoScales(), np.array([0.0, 30.0]), Explicit(rtol=1e-6))
    close = np.concatenate([np.linspace(0.0, 1e-3, 20), [30.0]])
    many = integrate(TwoScales(), close, Explicit(rtol=1e-6))
    # Each save time ends one step more, and nothing else.
    assert few.stats.steps < many.stats.steps <= few.stats.steps + len(close)


def test_second_call_with_other_times_and_tolerances_compiles_nothing(caplog):
    system = TwoScales(rate=jnp.array(1.0))
    integrate(system, TS, Explicit(rtol=1e-6))
    with jax.log_compiles(), caplog.at_level("WARNING"):
        again = TwoScales(rate=jnp.array(2.0))
        integrate(again, np.linspace(0.1, 9.0, 4), Explicit(rtol=1e-9, max_steps=7_777))
    assert not [r.getMessage() for r in caplog.records if "XLA compilation" in r.getMessage()]


def test_time_zero_is_recorded_without_a_step():
    solution = integrate(TwoScales(), np.array([0.0]), Auto())
    assert solution.stats.steps == 0
    assert not solution.stop.failed
    np.testing.assert_array_equal(solution.records["large"], np.ones((1, 1000)))


def test_save_times_need_not_start_at_zero():
    late = integrate(TwoScales(), TS[3:], Explicit(rtol=1e-9))
    np.testing.assert_allclose(late.records["large"][:, 0], np.exp(-TS[3:]), rtol=1e-7)


def test_finite_time_blow_up_is_reported_with_its_time():
    solution = integrate(Growth(jnp.array(2.0)), np.linspace(0.0, 2.0, 21), Explicit(rtol=1e-10))
    assert solution.stop.reason == "blow-up"
    assert "blow-up at t = 1:" in str(solution.stop)
    np.testing.assert_allclose(solution.stop.t, 1.0, atol=1e-6)
    np.testing.assert_allclose(solution.ts, np.linspace(0.0, 2.0, 21)[:10])
    np.testing.assert_allclose(solution.records["y"][:, 0], 1 / (1 - solution.ts), rtol=1e-7)


def test_exponential_growth_is_not_called_a_blow_up_in_finite_time():
    solution = integrate(Growth(jnp.array(1.0)), np.array([0.0, 100.0]), Explicit(rtol=1e-6))
    assert solution.stop.reason == "blow-up"
    assert "diverged (exponentially) by t = 19." in str(solution.stop)


def test_step_limit_keeps_what_was_reached():
    solution = integrate(TwoScales(), TS, Explicit(rtol=1e-9, max_steps=20))
    assert solution.stop.reason == "step limit"
    assert solution.stats.steps == 20
    assert 0 < len(solution.ts) < len(TS)
    assert "step limit of 20 reached at t = " in str(solution.stop)
    np.testing.assert_allclose(solution.records["large"][:, 0], np.exp(-solution.ts), rtol=1e-7)


def test_save_time_that_the_last_step_allowed_ends_at_is_kept():
    whole = integrate(TwoScales(), TS[:3], Explicit(rtol=1e-9))
    solver = Explicit(rtol=1e-9, max_steps=whole.stats.steps + whole.stats.rejected)
    solution = integrate(TwoScales(), TS, solver)
    assert solution.stop.reason == "step limit"
    np.testing.assert_array_equal(solution.ts, TS[:3])


def test_solution_that_slides_along_a_jump_goes_on():
    solution = integrate(Valley(), TS, Explicit(rtol=1e-8, max_steps=2_000))
    assert not solution.stop.failed
    assert solution.stats.forced > 0
    # Steps at the jump are a tenth of the largest, so this is how far it chatters.
    np.testing.assert_allclose(solution.records["y"][:, 0], np.minimum(2 * TS, 1), atol=0.05)


def test_no_step_is_forced_where_the_right_hand_side_is_smooth():
    for rtol in (1e-4, 1e-8, 1e-13):
        assert integrate(TwoScales(), TS, Explicit(rtol=rtol)).stats.forced == 0
    assert integrate(Growth(jnp.array(2.0)), TS, Explicit(rtol=1e-10)).stats.forced == 0


@pytest.mark.parametrize("method", [dfx.Heun(), dfx.Midpoint(), dfx.Bosh3()])
@pytest.mark.parametrize("rtol", [1e-3, 1e-4])
def test_no_step_is_forced_by_a_method_too_low_in_order_to_tell_a_jump(method, rtol):
    for system in (TwoScales(), Growth(jnp.array(2.0))):
        assert integrate(system, TS, Explicit(rtol=rtol, method=method)).stats.forced == 0
    solution = integrate(Pulse(), TS, Explicit(rtol=rtol, method=method))
    assert solution.stats.forced == 0
    assert not solution.stop.failed


def test_right_hand_side_that_is_not_finite_stops_at_once():
    solution = integrate(TwoScales(rate=jnp.array(jnp.nan)), TS, Explicit())
    assert solution.stop.reason == "non-finite"
    assert len(solution.ts) == 1  # the start itself


def test_interrupt_keeps_what_was_reached():
    def report(part):
        if part >= 1.5 / TS[-1]:
            raise KeyboardInterrupt

    solution = integrate(TwoScales(), TS, Explicit(rtol=1e-6), report=report)
    assert solution.stop.reason == "interrupt"
    np.testing.assert_allclose(solution.ts, TS[:3])


def test_single_precision_meets_its_default_tolerance():
    class Single(TwoScales):
        def initial(self):
            return jax.tree.map(lambda a: a.astype(jnp.float32), super().initial())

    solution = integrate(Single(rate=jnp.float32(1.0)), TS, Auto())
    assert solution.records["large"].dtype == np.float32
    np.testing.assert_allclose(solution.records["large"][:, 0], np.exp(-TS), rtol=1e-3)


def test_auto_says_what_it_chose_and_why():
    loose = integrate(TwoScales(), TS[:1], Auto(rtol=1e-3))
    tight = integrate(TwoScales(), TS[:1], Auto(rtol=1e-9))
    assert loose.choice == "Tsit5, rtol 1e-03, atol 1e-09 (rtol not below 1e-06)"
    assert tight.choice == "Dopri8, rtol 1e-09, atol 1e-15 (rtol below 1e-06)"


@pytest.mark.parametrize("make", [Explicit, Auto])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rtol": 0.0}, "`rtol` must be a positive number, but is 0.0."),
        ({"rtol": -1e-3}, "`rtol` must be a positive number, but is -0.001."),
        ({"atol": float("nan")}, "`atol` must be a positive number, but is nan."),
        ({"max_steps": 0}, "`max_steps` must be an integer of at least 1, but is 0."),
    ],
)
def test_settings_that_nothing_can_meet_are_refused(make, settings, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the sentence is compared whole
        make(**settings)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("dtype", "cure"), [(jnp.float32, "float64"), (jnp.float64, "raise it")])
def test_tolerance_below_rounding_is_refused_with_the_cure(dtype, cure):
    with pytest.raises(ValueError, match=f"`rtol` must be at least .* but is 1.0e-17.*{cure}"):
        Explicit(rtol=1e-17).tolerances(dtype)
