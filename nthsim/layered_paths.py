"""A batch of inputs along a path of parameters, followed through the layers of a network."""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from nthsim.layers import (
    Layer,
    Terms,
    bias_gradient,
    is_layer,
    layers_of,
    received,
    returned,
    weight_gradients,
    without_bias,
)
from nthsim.opened import OpenedNetwork, Point, elsewhere_of
from nthsim.series import coefficients


class AtRest(eqx.Module):
    r"""Coefficients 0 on a batch: z, and r for unit cotangents of scalar outputs, else none.

    They are the same for all paths from $\theta_0$.
    """

    z: tuple[Float[Array, "s ..."], ...]
    r: tuple[Float[Array, "s ..."], ...]


class Forward(eqx.Module):
    """What each call takes, h, and returns, z, and the outputs f.

    `h` and `f` have one more term than `z`: what it would be, did no call return any of its order.
    """

    h: list[Terms]
    z: list[Terms]
    f: Terms


class Backward(eqx.Module):
    r"""Derivatives $\delta$ by what each call returns, and by what it takes, $r = W^\top \delta$.

    `shares[c][i][j]` is $W_i^\top \delta_j$ of call c, of which r is the sum.
    """

    delta: list[Terms]
    shares: list[list[Terms]]
    r: list[Terms]

    def weighed(self, c: Float[Array, "s 1"]) -> "Backward":
        """For cotangents c of scalar outputs, once built for those of one."""
        return jax.tree.map(lambda a: jax.vmap(jnp.multiply)(c[:, 0], a), self)


class LayeredPath(eqx.Module):
    r"""A batch x along the path $\theta_0, \dots, \theta_q$: z and $\delta$ have terms 0..q-1.

    `layers[j][c]` is what $\theta_j$ holds of the layer that call c is one of, `elsewhere[j]` what
    it holds outside of layers.
    """

    opened: OpenedNetwork
    layers: list[list[Layer]]
    elsewhere: list[PyTree[Array]]
    x: Float[Array, "s ..."]
    rest: AtRest | None

    @property
    def q(self) -> int:
        """The number of terms of z and of signals."""
        return len(self.layers) - 1

    def forward(self) -> Forward:
        """Visit the calls in their order."""
        h: list[Terms] = []
        z: list[Terms] = []
        for c in range(len(self.opened.calls)):
            h.append(self._taken(z))
            z.append([self._returned(c, j, h[c]) for j in range(self.q)])
        return Forward(h, z, self._taken(z))

    def backward(self, forward: Forward, c: Float[Array, "s k"]) -> Backward:
        """Visit the calls in reverse order, with cotangents c that do not change along the path."""
        delta: list[Terms] = []
        shares: list[list[Terms]] = []
        r: list[Terms] = []
        for call in reversed(range(len(self.opened.calls))):
            at = self._points(forward.z, r)
            delta.insert(0, coefficients(lambda at: self.opened.signal(at, c, self.x), at))
            shares.insert(0, self._shares(call, delta[0]))
            r.insert(0, [_sum(shares[0][i][j - i] for i in range(j + 1)) for j in range(self.q)])
        return Backward(delta, shares, r)

    def last_output(self, forward: Forward, backward: Backward) -> list[Float[Array, " s"]]:
        r"""$[\epsilon^q] f$ of scalar outputs, beyond the terms of z, as a list to be summed.

        By the adjoint: with $\bar h_q$ and $\bar f_q$ the last terms of `forward`, and signals for
        unit cotangents,
        $$f_q = \bar f_q + \sum_c \langle r_0, \bar h_q \rangle
        + \langle \delta_0, W_q h_0 + \dots + W_1 h_{q-1} \rangle.$$
        """
        parts = [forward.f[self.q][:, 0]]
        for c, h in enumerate(forward.h):
            parts.append(_dot(backward.delta[c][0], returned(self.layers[self.q][c], h[0])))
            weights = [backward.r[c][0], *(share[0] for share in backward.shares[c][1:])]
            pairs = zip(weights, reversed(h[1:]), strict=True)
            parts += [_dot(weight, term) for weight, term in pairs if term is not None]
        return parts

    def gradients(self, forward: Forward, backward: Backward, c: Float[Array, "s k"]) -> list:
        r"""$[\epsilon^j] \sum_b c_b \nabla f_b$ for j = 0..q-1, `backward` for these cotangents."""
        by_call = []
        for call, h, delta in zip(self.layers[0], forward.h, backward.delta, strict=True):
            biases = [None if call.bias is None else bias_gradient(call, d) for d in delta]
            by_call.append(list(zip(weight_gradients(call, h, delta), biases, strict=True)))
        elsewhere = self.elsewhere
        if jax.tree.leaves(elsewhere):
            gradient = lambda at: self.opened.gradient_elsewhere(at, c, self.x)  # noqa: E731
            elsewhere = coefficients(gradient, self._points(forward.z, backward.r))
        return [self._assembled(_order(by_call, j), elsewhere[j]) for j in range(self.q)]

    def _taken(self, z: list[Terms]) -> Terms:
        """What the next call takes, or f after the last."""
        taken = lambda at: self.opened.taken(at, self.x)  # noqa: E731
        if not z and not jax.tree.leaves(self.elsewhere):
            return [taken(Point((), self.elsewhere[0])), *[None] * self.q]
        cut = tuple(jnp.zeros_like(terms[0]) for terms in z)
        return coefficients(taken, [*self._points(z), Point(cut, self.elsewhere[self.q])])

    def _returned(self, c: int, j: int, h: Terms) -> Float[Array, "s ..."]:
        if j == 0 and self.rest is not None:
            return self.rest.z[c]
        bare = [without_bias(self.layers[i][c]) for i in range(j)]
        moved = [returned(bare[i], h[j - i]) for i in range(j) if h[j - i] is not None]
        return _sum([returned(self.layers[j][c], h[0]), *moved])

    def _shares(self, c: int, delta: Terms) -> list[Terms]:
        shape = self.opened.calls[c].taken
        shares = [
            [received(self.layers[i][c], shape, delta[j]) for j in range(self.q - i)]
            for i in range(self.q)
        ]
        if self.rest is not None and self.rest.r:
            shares[0][0] = self.rest.r[c]
        return shares

    def _points(self, z: list[Terms], received: Sequence[Terms] = ()) -> list[Point]:
        """Order by order."""
        return [Point(_order(z, j), self.elsewhere[j], _order(received, j)) for j in range(self.q)]

    def _assembled(self, by_call: tuple, elsewhere: PyTree[Array]) -> PyTree[Array]:
        """One coefficient of the gradient; that by a layer is the sum over its calls."""
        index = iter(range(len(by_call)))

        def placed(node: Any) -> Any:
            if not is_layer(node):
                return None
            i = next(index)
            weights, biases = zip(
                *(by_call[c] for c, call in enumerate(self.opened.calls) if call.layer == i),
                strict=True,
            )
            node = eqx.tree_at(lambda at: at.weight, node, _sum(weights))
            if node.bias is None:
                return node
            return eqx.tree_at(lambda at: at.bias, node, _sum(biases))

        layers = jax.tree.map(placed, self.opened.theta, is_leaf=is_layer)
        return eqx.combine(layers, elsewhere)


def layered_path(
    opened: OpenedNetwork, path: tuple[PyTree[Array], ...], x: Array, rest: AtRest | None
) -> LayeredPath:
    """Sort the parameters by the calls that they act in."""
    layers = [[layers_of(theta)[call.layer] for call in opened.calls] for theta in path]
    return LayeredPath(opened, layers, [elsewhere_of(theta) for theta in path], x, rest)


@eqx.filter_jit
def at_rest(opened: OpenedNetwork, x: Float[Array, "s ..."]) -> AtRest:
    """Evaluate the network once, and unit signals of scalar outputs."""
    still = layered_path(opened, (opened.theta, opened.theta), x, None)
    with jax.default_matmul_precision("highest"):
        forward = still.forward()
        ones = jnp.ones_like(forward.f[0])
        r = _order(still.backward(forward, ones).r, 0) if ones.shape[1] == 1 else ()
        return AtRest(_order(forward.z, 0), r)


def _order(terms: Sequence[Terms], j: int) -> tuple[Any, ...]:
    return tuple(one[j] for one in terms)


def _sum(parts: Iterable[Array]) -> Array:
    return reduce(add, parts)


def _dot(a: Float[Array, "s ..."], b: Float[Array, "s ..."]) -> Float[Array, " s"]:
    return jnp.sum((a * b).reshape(len(a), -1), axis=1)
