"""What nthsim must come to, in float64 NumPy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

from canary.jets import Jet, Tape
from canary.networks import Twin


class Loss(NamedTuple):
    """The loss of each sample, and its slope in the outputs."""

    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray]


class Reference(NamedTuple):
    """A network at its initial parameters, training inputs followed by test inputs, and a loss."""

    twin: Twin
    theta: list[np.ndarray]
    x: np.ndarray
    y: np.ndarray
    loss: Loss

    @property
    def n(self) -> int:
        """Training points."""
        return len(self.y)

    def outputs(self) -> np.ndarray:
        """At t = 0, of all points."""
        return self.evaluated([self.theta], 0)[0]

    def evaluated(
        self, path: list[list[np.ndarray]], degree: int
    ) -> tuple[np.ndarray, Callable[[np.ndarray], list[Jet]]]:
        """The sum of the outputs' series along a path, and gradients for a seed."""
        tape = Tape(degree)
        theta = [tape.parameter(terms) for terms in zip(*path, strict=True)]
        node = self.twin(theta, tape.constant(self.x))
        f = sum(term for term in node.jet if term is not None)
        return np.asarray(f), lambda seed: tape.gradients(node, seed)

    def jacobian(self, path: list[list[np.ndarray]], degree: int) -> list[np.ndarray]:
        """The series of the gradients of each output, each term of shape (N, P)."""
        tape = Tape(degree, per_sample=True)
        theta = [tape.parameter(terms) for terms in zip(*path, strict=True)]
        node = self.twin(theta, tape.constant(self.x))
        assert node.jet[0] is not None
        columns = []
        for one in np.eye(int(np.prod(node.jet[0].shape[1:]))):
            seed = np.broadcast_to(one.reshape(node.jet[0].shape[1:]), node.jet[0].shape)
            columns.append(_flat(tape.gradients(node, seed), self.theta, len(self.x)))
        stacked = np.stack(columns, axis=1)
        return list(np.moveaxis(stacked, 2, 0).reshape(degree + 1, -1, stacked.shape[-1]))

    def trained(self, kind: str, p: int, tau: float) -> tuple[np.ndarray, np.ndarray]:
        """Outputs of all points at tau, and the state there.

        `kind` is "flow", "taylor" of degree p, or "order" p: the state of that one holds the terms
        of the path whose outputs, cut off behind the power p - 1, are the truncation's.
        """
        copies = p - 1 if kind == "order" else 1
        size = sum(array.size for array in self.theta)
        start = np.zeros(copies * size)

        def right(_: float, state: np.ndarray) -> np.ndarray:
            f, gradients = self._at(kind, p, state)
            found = gradients(self.seed(f))
            if kind == "order":
                terms = [_power(found, j, self.theta) for j in range(copies)]
            else:
                degrees = range(p if kind == "taylor" else 1)
                terms = [sum(_power(found, j, self.theta) for j in degrees)]
            return -np.concatenate(terms)

        scale = tau * np.abs(right(0.0, start)).max()
        tight = {"rtol": 1e-11, "atol": 1e-13 * scale + 1e-300, "first_step": tau}
        run = solve_ivp(right, (0.0, tau), start, method="DOP853", **tight)
        state = run.y[:, -1]
        return self._at(kind, p, state)[0], state

    def _at(self, kind: str, p: int, state: np.ndarray):
        terms = [self.shaped(term) for term in state.reshape(-1, sum(a.size for a in self.theta))]
        if kind == "flow":
            moved = [a + b for a, b in zip(self.theta, terms[0], strict=True)]
            return self.evaluated([moved], 0)
        return self.evaluated([self.theta, *terms], p if kind == "taylor" else p - 1)

    def flat(self, gradients: list[Jet]) -> np.ndarray:
        """The first terms of gradients, as one vector."""
        return _power(gradients, 0, self.theta)

    def seed(self, f: np.ndarray) -> np.ndarray:
        """The slope of the mean loss in the outputs; zero at test points."""
        seed = np.zeros_like(f)
        seed[: self.n] = self.loss.slope(f[: self.n], self.y) / self.n
        return seed

    def mean_loss(self, f: np.ndarray) -> float:
        """Over the training points."""
        return float(np.mean(self.loss.value(f[: self.n], self.y)))

    def shaped(self, flat: np.ndarray) -> list[np.ndarray]:
        """A vector as parameters."""
        ends = np.cumsum([a.size for a in self.theta])[:-1]
        return [a.reshape(b.shape) for a, b in zip(np.split(flat, ends), self.theta, strict=True)]

    def horizon(self) -> float:
        """A twentieth of the fastest time scale, by two turns of a power iteration."""
        f, gradients = self.evaluated([self.theta], 0)
        seed, rates = self.seed(f), []
        for _ in range(3):
            direction = self.shaped(_power(gradients(seed), 0, self.theta))
            moved = self.evaluated([self.theta, direction], 1)[0] - f
            moved[self.n :] = 0
            rates.append(np.linalg.norm(moved) / max(np.linalg.norm(seed) * self.n, 1e-300))
            if not rates[1:]:
                rates.append(np.abs(moved).max() / (0.1 + np.abs(f).max()))
            seed = moved / max(np.linalg.norm(moved), 1e-300)
        return 0.05 / max(*rates, 1e-300)

    def kernels(self, order: int, state: np.ndarray | None = None) -> list[np.ndarray]:
        """From order 2 on, among all points in all slots, (N, ..., N)."""
        moved = 0.0 if state is None else state
        theta = self.shaped(np.concatenate([a.ravel() for a in self.theta]) + moved)
        (G,) = self.jacobian([theta], 0)
        found = [G @ G.T]
        if order == 2:
            return found
        pushed = np.array([self._pushed(theta, g, 1) for g in G])  # H_a g_c at [c, a]
        third = np.einsum("cap,bp->abc", pushed, G)
        found.append(third + third.transpose(1, 0, 2))
        if order == 3:
            return found
        squares = np.array([self._pushed(theta, g, 2) for g in G])
        mixed = np.array(  # the third derivative along g_c and g_d, at [c, d, a]
            [
                [self._pushed(theta, g + h, 2) - squares[i] - squares[j] for j, h in enumerate(G)]
                for i, g in enumerate(G)
            ]
        )
        half = (
            np.einsum("cdap,bp->abcd", mixed, G)
            + np.einsum("dcp,bap->abcd", pushed, pushed)
            + np.einsum("cap,dbp->abcd", pushed, pushed)
        )
        found.append(half + half.transpose(1, 0, 2, 3))
        return found

    def frozen(self, kernel: np.ndarray, tau: float) -> np.ndarray:
        """Outputs at tau under a kernel of all points by training points, one output each."""
        right = lambda _, f: -kernel @ self.loss.slope(f[: self.n], self.y) / self.n  # noqa: E731
        run = solve_ivp(right, (0.0, tau), self.outputs(), method="DOP853", rtol=1e-12, atol=1e-15)
        return run.y[:, -1]

    def perturbed(self, tau: float) -> np.ndarray:
        """Outputs at tau to first order in the third and fourth kernel, of squared error."""
        f, (second, third, fourth) = self.outputs(), self.kernels(4)
        n, N = self.n, self.y.size
        N_all, shape = f.size, f.shape
        second, third, fourth = second[:, :N], third[:, :N, :N], fourth[:, :N, :N, :N]
        sizes = np.cumsum([N_all, N_all, N_all * N])
        start = [f.ravel(), np.zeros(N_all * (1 + N)), third.ravel()]
        y = self.y.ravel()

        def right(_: float, state: np.ndarray) -> np.ndarray:
            zeroth, first, kernel, moving = np.split(state, sizes)
            delta = (zeroth[:N] - y) / n
            kernel, moving = kernel.reshape(N_all, N), moving.reshape(N_all, N, N)
            slopes = [
                second @ delta,
                second @ first[:N] / n + kernel @ delta,
                (moving @ delta).ravel(),
                (fourth @ delta).ravel(),
            ]
            return -np.concatenate(slopes)

        whole = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-15}
        run = solve_ivp(right, (0.0, tau), np.concatenate(start), **whole)
        zeroth, first, _, _ = np.split(run.y[:, -1], sizes)
        return (zeroth + first).reshape(shape)

    def arc_cosine(self, depth: int) -> np.ndarray:
        """The limit of an FCN of relu, no constants, of all points by training points."""
        cross, gradients = self.x @ self.x.T, np.zeros((len(self.x),) * 2)
        for _ in range(depth):
            lengths = np.sqrt(np.diag(cross))
            ratio = np.clip(cross / np.outer(lengths, lengths), -1.0, 1.0)
            np.fill_diagonal(ratio, 1.0)
            angle = np.arccos(ratio)
            slopes = (np.pi - angle) / (2 * np.pi)
            gradients = slopes * (cross + gradients)
            values = np.outer(lengths, lengths) * (np.sin(angle) + (np.pi - angle) * ratio)
            cross = values / (2 * np.pi)
        return (cross + gradients)[:, : self.n]

    def _pushed(self, theta: list[np.ndarray], g: np.ndarray, power: int) -> np.ndarray:
        return self.jacobian([theta, self.shaped(g)], power)[power]


def _power(gradients: list[Jet], j: int, theta: list[np.ndarray]) -> np.ndarray:
    terms = zip(gradients, theta, strict=True)
    return np.concatenate(
        [np.zeros(a.size) if g[j] is None else np.asarray(g[j]).ravel() for g, a in terms]
    )


def _flat(gradients: list[Jet], theta: list[np.ndarray], n: int) -> np.ndarray:
    """Shape (n, powers, P)."""
    rows = []
    for j in range(len(gradients[0])):
        terms = zip(gradients, theta, strict=True)
        rows.append(
            np.concatenate(
                [
                    np.zeros((n, a.size)) if g[j] is None else np.asarray(g[j]).reshape(n, -1)
                    for g, a in terms
                ],
                axis=1,
            )
        )
    return np.stack(rows, axis=1)
