"""Errors between trajectories are what NumPy makes of their arrays."""

import numpy as np
import pytest

from nthsim.dynamics.errors import drift, errors, rms
from nthsim.dynamics.trajectory import Trajectory
from nthsim.solvers.solution import Stats
from nthsim.solvers.stop import Stop

T, N, TESTS, K = 5, 3, 2, 2


def _trajectory(seed: int, times: int = T, out: tuple[int, ...] = (), **left_out: None):
    rng = np.random.default_rng(seed)
    arrays = {
        "f": rng.standard_normal((T, N, *out)),
        "f_test": rng.standard_normal((T, TESTS, *out)),
        "loss": rng.standard_normal(T),
        "test_loss": rng.standard_normal(T),
        "kernel": rng.standard_normal((T, N, *out, N, *out)),
        "kernel_test": rng.standard_normal((T, TESTS, *out, N, *out)),
    }
    arrays = {name: array[:times] for name, array in arrays.items()} | left_out
    found = {name: arrays.pop(name) for name in ("kernel", "kernel_test")}
    records = {name: array for name, array in found.items() if array is not None}
    stop = Stop("horizon", 1.0, "reached t = 1")
    ts = np.linspace(0.0, 1.0, T)[:times]
    arrays |= {"records": records, "record_ts": ts}
    stats = Stats(steps=1, rejected=0, forced=0, evaluations=1, seconds=0.0)
    return Trajectory(name="one", ts=ts, stop=stop, stats=stats, solver="none", **arrays)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("out", [(), (K,)])
def test_errors_of_f_are_means_and_maxima_over_points_and_outputs(out):
    one, other = _trajectory(0, out=out), _trajectory(1, out=out)
    found = errors(one, other)
    for points in ("train", "test"):
        f, g = (getattr(t, "f" if points == "train" else "f_test") for t in (one, other))
        difference = np.array([(f[i] - g[i]).ravel() for i in range(T)])
        root_mean = [np.sqrt(np.sum(row**2) / row.size) for row in difference]
        np.testing.assert_allclose(getattr(found, f"{points}_rms"), root_mean, rtol=1e-14)
        largest = [max(abs(row)) for row in difference]
        np.testing.assert_array_equal(getattr(found, f"{points}_max"), largest)


def test_errors_of_losses_are_absolute_differences():
    one, other = _trajectory(0), _trajectory(1)
    assert one.test_loss is not None
    assert other.test_loss is not None
    found = errors(one, other)
    np.testing.assert_array_equal(found.loss, abs(one.loss - other.loss))
    np.testing.assert_array_equal(found.test_loss, abs(one.test_loss - other.test_loss))


@pytest.mark.parametrize("out", [(), (K,)])
@pytest.mark.parametrize("name", ["kernel", "kernel_test"])
def test_errors_of_kernels_are_relative_to_the_one_at_the_start_of_training(out, name):
    one, exact = _trajectory(0, out=out), _trajectory(1, out=out)
    start = np.random.default_rng(2).standard_normal((N, *out, N, *out))
    a, b = getattr(one, name), getattr(exact, name)
    expected = [np.sqrt(np.mean((a[i] - b[i]) ** 2) / np.mean(start**2)) for i in range(T)]
    np.testing.assert_allclose(getattr(errors(one, exact, start), name), expected, rtol=1e-14)


def test_error_of_a_kernel_is_unknown_without_that_of_the_start():
    found = errors(_trajectory(0), _trajectory(1))
    assert (found.kernel, found.kernel_test, found.kernel_ts) == (None, None, None)


@pytest.mark.parametrize(("first", "second"), [(3, T), (T, 3), (0, T)])
def test_errors_end_where_the_shorter_trajectory_does(first, second):
    start = np.ones((N, N))
    found = errors(_trajectory(0, first), _trajectory(1, second), start)
    whole = errors(_trajectory(0), _trajectory(1), start)
    shorter = min(first, second)
    for name in ("ts", "train_rms", "train_max", "test_rms", "loss", "kernel", "kernel_test"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[:shorter])


def test_error_of_what_was_not_recorded_is_none():
    nothing = dict.fromkeys(("f_test", "test_loss", "kernel", "kernel_test"))
    found = errors(_trajectory(0, **nothing), _trajectory(1), np.ones((N, N)))
    for name in ("test_rms", "test_max", "test_loss", "kernel", "kernel_test"):
        assert getattr(found, name) is None


def test_trajectory_has_no_error_against_itself():
    one = _trajectory(0)
    found = errors(one, one, np.ones((N, N)))
    for name in ("train_rms", "train_max", "test_rms", "test_max", "loss", "kernel"):
        np.testing.assert_array_equal(getattr(found, name), np.zeros(T))


@pytest.mark.parametrize("out", [(), (K,)])
def test_drift_is_the_relative_distance_from_the_kernel_at_the_start(out):
    one = _trajectory(0, out=out)
    kernel, start = one.kernel, np.random.default_rng(1).standard_normal((N, *out, N, *out))
    assert kernel is not None
    expected = [
        np.linalg.norm((kernel[i] - start).ravel()) / np.linalg.norm(start.ravel())
        for i in range(T)
    ]
    found = drift(one, start)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_drift_needs_a_kernel_at_the_start_and_at_one_time_at_least():
    start = np.ones((N, N))
    assert drift(_trajectory(0, kernel=None), start) is None
    assert drift(_trajectory(0, times=0), start) is None
    assert drift(_trajectory(0), None) is None


def test_root_mean_square_of_a_constant_is_its_size():
    np.testing.assert_array_equal(rms(np.full((2, 3, 4), -2.0)), [2.0, 2.0])
