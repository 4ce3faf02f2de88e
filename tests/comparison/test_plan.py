"""What a plan predicts, and that nothing is allocated before it is known to fit."""

import re
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.budget.size import Size, hierarchy_bytes
from nthsim.comparison.asked import Asked, compared_bytes, settled
from nthsim.comparison.curves import checked_curves
from nthsim.dynamics.pose import pose
from nthsim.inputs.memory import available, check_fits, container_memory, largest, readable
from nthsim.kernels.work import KernelSize, KernelWork
from nthsim.models import FCN
from nthsim.network.expansion_method import ExpansionMethod

pytestmark = pytest.mark.slow

TS = np.linspace(0.0, 1.0, 3)


def small(**changes) -> Size:
    size = Size(
        kernel=KernelSize(10, 4, joined=True, k=1, itemsize=8, work=KernelWork(200, None)),
        parameters=100,
        activations=50,
        expansion=ExpansionMethod((), None, None, units=True),
        save_times=3,
        recorded=3,
    )
    for name, value in changes.items():
        of = (lambda s: s.kernel) if name in ("n", "n_test") else (lambda s: s)
        at = lambda s, of=of, name=name: getattr(of(s), name)  # noqa: E731
        size = eqx.tree_at(at, size, value)
    return size


@pytest.mark.parametrize("out_size", ["scalar", 2])
def test_numbers_of_a_plan_are_those_of_the_kernels(out_size):
    data = nth.sphere(3, 2, dim=4)
    if out_size == 2:
        data = nth.Dataset(data.x, np.ones((3, 2)), data.x_test)
    net = FCN(4, 5, 1, out_size=out_size, key=jr.key(0))
    assert data.x_test is not None
    first = jnp.concatenate([data.x, data.x_test])
    kernels = [nth.kernel(net, data.x, r, x_first=first) for r in (2, 3)]
    plan = nth.plan(
        net,
        data,
        (nth.Order(2, method="dense"), nth.Order(3, method="dense")),
        TS,
    )
    flow, second, third = plan.needs
    outputs = 5 * (1 if out_size == "scalar" else 2)
    assert flow.moving == sum(a.size for a in (net.layers[0].weight, net.readout.weight))
    assert (flow.frozen, second.moving, second.frozen) == (0, outputs, kernels[0].size)
    assert (third.moving, third.frozen) == (outputs + kernels[0].size, kernels[1].size)


def test_plan_prints_a_row_per_dynamics_and_says_what_fits():
    net, data = FCN(4, 5, 1, key=jr.key(0)), nth.sphere(10, 2, dim=4)
    text = str(
        nth.plan(
            net,
            data,
            (nth.Order(3, method="dense"), nth.Order(2, method="dense")),
            TS,
        )
    )
    rows = [line.split("  ")[0] for line in text.split("\n\n")[1].splitlines()[2:]]
    assert rows == ["exact flow", "order 2", "order 3"]
    assert "order 3: dense (as asked for)" in text
    assert text.endswith("everything fits")
    assert max(map(len, text.splitlines())) <= 100
    short = nth.plan(
        net,
        data,
        (nth.Order(2, method="dense"), nth.Order(9, method="dense")),
        TS,
        memory=10**9,
    )
    assert not short.fits
    assert str(short).endswith(
        "does not fit: at order 9 the largest n that fits is 5; "
        "at n = 10 the largest order that fits is 7"
    )


def test_plan_explains_its_columns_under_the_table():
    text = str(
        nth.plan(
            FCN(4, 5, 1, key=jr.key(0)),
            nth.sphere(10, 2, dim=4),
            (nth.Order(2, method="dense"), nth.Order(40, method="dense")),
            TS,
        )
    )
    columns, _, *rows = text.splitlines()[2:6]
    legend = " ".join(text.split("\n\n")[2].split())
    for column in ("moving", "frozen", "kernels", "right-hand side", "in gradients"):
        assert column in columns
        assert f"{column}: " in legend
    number = r"(\d(\.\d+)?|\d\d(\.\d)?|\d{3}|0\.0*\d{1,3})[kMGTP]?|\d\.\d\de\+\d+"
    for row in rows:
        assert all(re.fullmatch(number, cell) for cell in re.split(r"  +", row)[-6:])


def test_what_a_plan_names_as_largest_fits_and_one_more_does_not():
    curves = [nth.Order(p, method="dense") for p in (2, 9)]

    def peak(n):
        return compared_bytes(
            settled(curves, small(n=n), certified=True), small(n=n), certified=True
        )

    n = largest(lambda n: peak(n) <= 10**9, 1, 10)
    assert n is not None
    assert peak(n) <= 10**9 < peak(n + 1)


@pytest.mark.parametrize("orders", [(2,), (3, 2), (2, 3, 4)])
def test_comparison_is_refused_just_when_its_plan_does_not_fit(orders):
    net, data = FCN(4, 5, 1, key=jr.key(0)), nth.sphere(5, 2, dim=4)
    curves = checked_curves([*(nth.Order(p, method="dense") for p in orders), nth.Taylor(1)])
    asked = Asked(net, data, nth.squared_error, curves, nth.Run(TS, record=("kernel",)))
    problem = pose(net, data, nth.squared_error)
    planned = lambda memory: nth.plan(net, data, curves, TS, memory=memory)  # noqa: E731
    peak = planned(None).together
    assert planned(peak).fits
    with nth.memory_limit(peak):
        asked.settled(problem)
    assert not planned(peak - 1).fits
    with (
        nth.memory_limit(peak - 1),
        pytest.raises(ValueError, match=r"must (be smaller to fit|be at most|hold at most)"),
    ):
        asked.settled(problem)


@pytest.mark.parametrize("order", [12, 60, 10**9])
def test_plan_of_the_impossible_neither_overflows_nor_takes_long(order):
    size = small(n=10**6, n_test=10**6)
    needed = hierarchy_bytes(size, order, "dense")
    assert needed > 8 * 2 * 10**72 if order > 12 else needed >= 8 * 2 * (10**6) ** 12
    assert readable(needed).endswith(" GB")


def test_memory_is_what_is_said_or_what_is_free():
    free = available()
    assert free > 10**8
    with nth.memory_limit(10**6):
        assert available() == 10**6
        assert available(5) == 5
        with nth.memory_limit(7):
            assert available() == 7
        assert available() == 10**6
    assert available() > 10**8


VERSIONS = [
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
]


@pytest.mark.parametrize("version", VERSIONS, ids=["v2", "v1"])
def test_memory_is_no_more_than_a_container_leaves(version, tmp_path, monkeypatch):
    limit, usage, parts, cache = (*(tmp_path / name for name in version[:3]), version[3])
    limit.parent.mkdir(exist_ok=True)
    limit.write_text("1000000\n")
    assert container_memory(tmp_path) is None
    usage.write_text("700000\n")
    assert container_memory(tmp_path) == 300_000
    parts.write_text(f"anon 1\n{cache} 200000\n")
    assert container_memory(tmp_path) == 500_000
    monkeypatch.setattr("nthsim.inputs.memory.CGROUP", tmp_path)  # only a system has its own
    if jax.devices()[0].platform == "cpu":
        assert available() == 500_000
    usage.write_text("2000000\n")
    assert container_memory(tmp_path) == 1


def test_container_without_limit_has_all_that_is_free(tmp_path):
    assert container_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000\n")
    assert container_memory(tmp_path) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1 MB"), (998_000_001, "999 MB"), (999_000_000, "1.0 GB"), (8_349_999_999, "8.3 GB")],
)
def test_bytes_are_readable(count, text):
    assert readable(count) == text


@pytest.mark.parametrize(
    ("memory", "sentence"),
    [
        (
            10**8,
            "`order` must be at most 4 for n = 10 here, but is 5: order 5 needs 1.0 GB and "
            "100 MB are available; at order 5, n = 6 fits.",
        ),
        (
            10**3,
            "`data` must hold at most 1 points, but holds 10: order 5 needs 1.0 GB and 1 MB are "
            "available.",
        ),
        (10**6, None),
    ],
)
def test_refusal_names_the_largest_that_fits(memory, sentence):
    # Bytes that rise like n^p: only small orders, then only small n, fit.
    need = (lambda p, n: 10**4 * n**p) if memory == 10**8 else (lambda p, n: 10**3 * n**6)
    order = 5
    with nth.memory_limit(memory):
        if sentence is None:
            check_fits("order", order, 3, need)
            return
        with pytest.raises(ValueError, match="must") as caught:
            check_fits("order", order, 10, need)
    assert str(caught.value) == sentence


MEASURE = """
import sys
import jax; jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np, psutil
from nthsim.solvers import Explicit
from nthsim.solvers.dense_hierarchy import DenseHierarchy
from nthsim.solvers.integration import integrate

def solve(N, p):
    kernels = tuple(jnp.full((N,) * r, 1e-3 / N**r) for r in range(1, p + 1))
    system = DenseHierarchy(
        kernels=kernels, residual=lambda f: f - 1.0, risk=jnp.mean, samples=N, quadratic=True
    )
    integrate(system, np.array([1.0]), Explicit(rtol=1e-7, max_steps=2))

p = int(sys.argv[2])
solve(3, p)
before = psutil.Process().memory_info().rss
solve(int(sys.argv[1]), p)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024 - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("n", "order"), [(18, 6), (400, 3)])
def test_peak_of_a_hierarchy_is_within_a_factor_of_what_is_measured(n, order):
    # VmHWM, as the peak that `getrusage` tells includes that of the process this one came from.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(n), str(order)],
        capture_output=True,
        text=True,
        check=True,
    )
    predicted = hierarchy_bytes(small(n=n, n_test=0, recorded=0), order, "dense")
    # 0.9 GB, mostly Runge-Kutta stages, and 0.6 GB, mostly the frozen kernel.
    assert 1 / 1.5 < predicted / int(done.stdout) < 1.5
