"""A network along a path of parameters, layer by layer."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Real

from nthsim.network.coefficients import coefficients, pulled
from nthsim.network.expansion import AbstractExpansion, ThetaPath
from nthsim.network.layers import (
    Layer,
    Terms,
    bias_gradient,
    is_layer,
    received,
    returned,
    weight_gradients,
    without_bias,
)
from nthsim.network.tapes import Batches, OpenedNetwork, Point, elsewhere_of
from nthsim.solvers.compiled import compiled


class AtRest(eqx.Module):
    r"""Coefficients 0 on a batch, which are the same for all paths from $\theta_0$.

    Those of z and, where outputs are scalars, of r for unit cotangents, else none.
    """

    z: tuple[Float[Array, "s ..."], ...]
    r: tuple[Float[Array, "s ..."], ...]


class Forward(eqx.Module):
    """What each call takes, h, and returns, z, and the outputs f, with as many terms each.

    Beyond these `h` and `f` may have one more: what it would be, did no call return any of its
    order.
    """

    h: list[Terms]
    z: list[Terms]
    f: Terms


class Backward(eqx.Module):
    r"""Derivatives $\delta$ by what each call returns, and by what it takes, $r = W^\top \delta$.

    `shares[call][i][j]` is $W_i^\top \delta_j$, of which r is the sum.
    """

    delta: list[Terms]
    shares: list[list[Terms]]
    r: list[Terms]

    def weighed(self, c: Float[Array, "s 1"]) -> "Backward":
        """For cotangents c of scalar outputs, once built for those of one."""
        return jax.tree.map(lambda a: jax.vmap(jnp.multiply)(c[:, 0], a), self)


class LayeredPath(eqx.Module):
    r"""A batch x along the path $\theta_0, \theta_1, \dots$.

    `layers[j][call]` is what $\theta_j$ holds of the layer that is called, `elsewhere[j]` what it
    holds outside of layers.
    """

    opened: OpenedNetwork
    layers: list[list[Layer]]
    elsewhere: list[PyTree[Array]]
    x: Real[Array, "s ..."]
    rest: AtRest | None

    def forward(self, terms: int, *, beyond: bool = False) -> Forward:
        """Visit the calls in their order, and look one term `beyond`."""
        h: list[Terms] = []
        z: list[Terms] = []
        for call in range(len(self.opened.calls)):
            h.append(self._taken(z, terms, beyond))
            z.append([self._returned(call, j, h[call]) for j in range(terms)])
        return Forward(h, z, self._taken(z, terms, beyond))

    def backward(
        self, forward: Forward, terms: int, c: Float[Array, "s k"] | None = None
    ) -> Backward:
        """Visit the calls in reverse order.

        Cotangents c do not change along the path; without them outputs are scalars, and theirs one.
        """
        seed = jnp.ones_like(forward.f[0]) if c is None else c
        delta: list[Terms] = []
        shares: list[list[Terms]] = []
        r: list[Terms] = []
        for call in reversed(range(len(self.opened.calls))):
            later = partial(self._later, call)
            points, cotangents = self._points(forward.z, terms), _cotangents(r, seed, terms)
            delta.insert(0, pulled(later, forward.z[call][:terms], points, cotangents))
            shares.insert(0, self._shares(call, delta[0]))
            if c is None and self.rest is not None:
                shares[0][0][0] = self.rest.r[call]
            r.insert(0, [_sum(shares[0][i][j - i] for i in range(j + 1)) for j in range(terms)])
        return Backward(delta, shares, r)

    def last_output(self, forward: Forward, unit: Backward) -> list[Float[Array, " s"]]:
        r"""$[\epsilon^q] f$ of scalar outputs for q terms of z, as a list to be summed.

        By the adjoint: with $\bar h_q$ and $\bar f_q$ one term beyond those of z, and unit signals,
        $$f_q = \bar f_q + \sum_\mathrm{calls} \langle r_0, \bar h_q \rangle
        + \langle \delta_0, W_q h_0 + \dots + W_1 h_{q-1} \rangle.$$
        """
        q = len(forward.f) - 1
        parts = [forward.f[q][:, 0]]
        for call, h in enumerate(forward.h):
            parts.append(_dot(unit.delta[call][0], returned(self.layers[q][call], h[0])))
            weights = [unit.r[call][0], *(share[0] for share in unit.shares[call][1:])]
            pairs = zip(weights, reversed(h[1:]), strict=True)
            parts += [_dot(weight, term) for weight, term in pairs if term is not None]
        return parts

    def gradients(self, forward: Forward, backward: Backward, c: Float[Array, "s k"]) -> ThetaPath:
        r"""$[\epsilon^j] \sum_b c_b \nabla f_b$, given `backward` for these cotangents."""
        by_call = []
        for layer, h, delta in zip(self.layers[0], forward.h, backward.delta, strict=True):
            biases = [None if layer.bias is None else bias_gradient(layer, d) for d in delta]
            by_call.append(list(zip(weight_gradients(layer, h, delta), biases, strict=True)))
        terms = len(backward.delta[0])
        elsewhere = self.elsewhere
        if jax.tree.leaves(elsewhere):
            by = lambda at, z: self.opened.elsewhere(at, z, self.x)  # noqa: E731
            z = [_order(forward.z, j) for j in range(terms)]
            elsewhere = pulled(by, elsewhere[:terms], z, _cotangents(backward.r, c, terms))
        return tuple(self._assembled(_order(by_call, j), elsewhere[j]) for j in range(terms))

    def _taken(self, z: list[Terms], terms: int, beyond: bool) -> Terms:
        """What the next call takes, or f after the last."""
        taken = lambda at: self.opened.taken(at, self.x)  # noqa: E731
        if not z and not jax.tree.leaves(self.elsewhere):
            return [taken(Point((), self.elsewhere[0])), *[None] * (terms - 1 + beyond)]
        points = self._points(z, terms)
        if beyond:
            cut = tuple(jnp.zeros_like(one[0]) for one in z)
            points.append(Point(cut, self.elsewhere[terms]))
        return coefficients(taken, points)

    def _later(self, call: int, z: Array, others: Point) -> tuple[Batches, Array]:
        return self.opened.later(call, z, others, self.x)

    def _returned(self, call: int, j: int, h: Terms) -> Float[Array, "s ..."]:
        if j == 0 and self.rest is not None:
            return self.rest.z[call]
        bare = [without_bias(self.layers[i][call]) for i in range(j)]
        moved = [returned(bare[i], h[j - i]) for i in range(j) if h[j - i] is not None]
        return _sum([returned(self.layers[j][call], h[0]), *moved])

    def _shares(self, call: int, delta: Terms) -> list[Terms]:
        shape = self.opened.calls[call].taken
        return [
            [received(self.layers[i][call], shape, d) for d in delta[: len(delta) - i]]
            for i in range(len(delta))
        ]

    def _points(self, z: list[Terms], terms: int) -> list[Point]:
        """Order by order."""
        return [Point(_order(z, j), self.elsewhere[j]) for j in range(terms)]

    def _assembled(
        self, by_call: tuple[tuple[Array, Any], ...], elsewhere: PyTree[Array]
    ) -> PyTree[Array]:
        """One coefficient of the gradient; that by a layer is the sum over its calls."""
        layer = iter(range(len(by_call)))

        def placed(node: Any) -> Any:
            if not is_layer(node):
                return None
            i = next(layer)
            parts = zip(self.opened.calls, by_call, strict=True)
            weights, biases = zip(*(part for call, part in parts if call.layer == i), strict=True)
            node = eqx.tree_at(lambda at: at.weight, node, _sum(weights))
            if node.bias is None:
                return node
            return eqx.tree_at(lambda at: at.bias, node, _sum(biases))

        layers = jax.tree.map(placed, self.opened.theta, is_leaf=is_layer)
        return eqx.combine(self.opened.network.by_parameters(layers), elsewhere)


def layered_path(
    opened: OpenedNetwork, path: ThetaPath, x: Array, rest: AtRest | None = None
) -> LayeredPath:
    """Sort the parameters by the calls that they act in."""
    steps = [opened.network.layers(theta, step=j > 0) for j, theta in enumerate(path)]
    layers = [[step[call.layer] for call in opened.calls] for step in steps]
    return LayeredPath(opened, layers, [elsewhere_of(theta) for theta in path], x, rest)


@compiled
def at_rest(opened: OpenedNetwork, x: Real[Array, "n ..."], *, units: bool, chunk: int) -> AtRest:
    """Evaluate the network once, and unit signals if asked for, `chunk` inputs together."""

    def each(one: Real[Array, "..."]) -> AtRest:
        still = layered_path(opened, (opened.theta,), one[None])
        forward = still.forward(1)
        r = _order(still.backward(forward, 1).r, 0) if units else ()
        return jax.tree.map(lambda a: a[0], AtRest(_order(forward.z, 0), r))

    with jax.default_matmul_precision("highest"):  # as the run that it is part of
        return jax.lax.map(each, x, batch_size=chunk)


def _cotangents(
    r: Sequence[Terms], c: Float[Array, "s k"], terms: int
) -> list[tuple[tuple[Any, ...], Array]]:
    """Those of inputs of calls and of the outputs, order by order; c does not change."""
    still = [c, *[jnp.zeros_like(c)] * (terms - 1)]
    return [(_order(r, j), still[j]) for j in range(terms)]


def _order(terms: Sequence[Terms], j: int) -> tuple[Any, ...]:
    return tuple(one[j] for one in terms)


def _sum(parts: Iterable[Array]) -> Array:
    return reduce(add, parts)


def _dot(a: Float[Array, "s ..."], b: Float[Array, "s ..."]) -> Float[Array, " s"]:
    return jnp.sum((a * b).reshape(len(a), -1), axis=1)


class LayeredExpansion(AbstractExpansion):
    r"""Outputs and gradients from the series of layer inputs h and of signals $\delta$.

    Each call of a layer returns $z = W h$ and its input receives $W^\top \delta$, products of
    series; the weight's gradient is $\sum_b \delta_b h_b^\top$, another one. Coefficients 0 of z
    are the same at all times, and kept in `rest` where they fit.

    Where outputs are scalars, signals have `units`: the residual weighs them at their end. Then
    coefficients 0 of $W^\top \delta$ are the same at all times too, and the highest coefficient of
    f, beyond those of the signals, takes no more than one product per layer
    (`LayeredPath.last_output`). Unit signals of vectors would take a backward pass for each of
    their numbers; there the outputs come first.
    """

    opened: OpenedNetwork
    rest: AtRest | None
    out_shape: tuple[int, ...] = eqx.field(static=True)
    units: bool = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def batch_outputs(self, path: ThetaPath, x: Real[Array, "s ..."]) -> Float[Array, "p s ..."]:
        """Those of the forward pass."""
        f = jnp.stack(layered_path(self.opened, path, x).forward(len(path)).f)
        return f.reshape(*f.shape[:2], *self.out_shape)

    def batch_gradients(
        self,
        path: ThetaPath,
        x: Real[Array, "s ..."],
        samples: Int[Array, " s"],
        residual: Callable[[Array], Array],
    ) -> ThetaPath:
        """Products of the signals."""
        batch = lambda a: jax.lax.dynamic_slice_in_dim(a, samples[0], len(samples))  # noqa: E731
        layered = layered_path(self.opened, path, x, jax.tree.map(batch, self.rest))
        by_units = _gradients_by_units if self.units else _gradients_of_vectors
        shaped = lambda f: f.reshape(len(x), *self.out_shape)  # noqa: E731
        return by_units(layered, len(path), lambda f: residual(shaped(f)).reshape(len(x), -1))


def _gradients_by_units(
    layered: LayeredPath, p: int, residual: Callable[[Array], Float[Array, "s 1"]]
) -> ThetaPath:
    """Backward first."""
    forward = layered.forward(p - 1, beyond=True)
    unit = layered.backward(forward, p - 1)
    last = layered.last_output(forward, unit)
    parts = jnp.stack([*(f[:, 0] for f in forward.f[:-1]), *last])
    # A product, since XLA would redo a chain of sums for every number that c weighs.
    c = residual(jnp.ones_like(parts, shape=len(parts)) @ parts)
    return layered.gradients(forward, unit.weighed(c), c)


def _gradients_of_vectors(
    layered: LayeredPath, p: int, residual: Callable[[Array], Float[Array, "s k"]]
) -> ThetaPath:
    """The outputs first."""
    forward = layered.forward(p)
    c = residual(reduce(add, forward.f))
    return layered.gradients(forward, layered.backward(forward, p - 1, c), c)
