"""Layer inputs and back-propagated signals of any module built from `eqx.nn.Linear`."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from nthsim.network import Network


class Signals(eqx.Module):
    r"""What K^(2) is made of, for a batch of inputs.

    For each linear layer, the inputs `h` (n, T, in) of its T calls and the signals `delta`
    (n, k, T, out), the derivatives of the k outputs by what the layer returned; for all other
    parameters, the gradients `rest` (n, k, ...).
    """

    h: tuple[Float[Array, "..."], ...]
    delta: tuple[Float[Array, "..."], ...]
    rest: PyTree[Array]


class Step(eqx.Module):
    r"""A move of the parameters along the gradient of one output, by `size`.

    A layer's weight moves by $\mathrm{size} \cdot D^\top H$ with D (T, out) and H (T, in).
    """

    size: Float[Array, ""]
    D: tuple[Float[Array, "..."], ...]
    H: tuple[Float[Array, "..."], ...]
    rest: PyTree[Array]

    def scaled(self, size: Array) -> "Step":
        """The same direction with another size."""
        return Step(size, self.D, self.H, self.rest)


class Tape:
    """Visits the calls of the layers in one evaluation: records inputs, adds to outputs."""

    def __init__(self, additions: tuple[Array, ...] | None, moved: tuple[Step, ...]) -> None:
        """Add `additions`, one per call, and what the moved weights add."""
        self.additions, self.moved = additions, moved
        self.layers: list[int] = []
        self.h: list[Array] = []

    def visit(self, layer: int, linear: eqx.nn.Linear, x: Array) -> Array:
        """Evaluate one call."""
        h = x.reshape(-1)
        z = linear(x)
        if self.additions is not None:
            z = z + self.additions[len(self.h)].reshape(z.shape)
        for step in self.moved:
            z = z + (step.size * moved_output(linear, step, layer, h)).reshape(z.shape)
        self.layers.append(layer)
        self.h.append(h)
        return z


class Tapped(eqx.Module):
    """A linear layer that tells a tape of its calls."""

    linear: eqx.nn.Linear
    layer: int = eqx.field(static=True)
    tape: Tape = eqx.field(static=True)

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        """Evaluate by the tape."""
        del key
        return self.tape.visit(self.layer, self.linear, x)


class TappedNetwork(eqx.Module):
    """A network that shows its signals. `layers` names the layer of each call, in their order."""

    network: Network
    outputs: int = eqx.field(static=True)
    layers: tuple[int, ...] = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)
    biased: tuple[bool, ...] = eqx.field(static=True)

    def signals(self, theta: PyTree[Array], moved: tuple[Step, ...], x: Array) -> Signals:
        """The signals on a batch of inputs, with the parameters moved by small steps."""
        return jax.vmap(lambda one: self._signals(theta, moved, one))(x)

    def tangents(
        self, theta: PyTree[Array], moved: tuple[Step, ...], x: Array, signals: Signals, step: Step
    ) -> Signals:
        r"""How the signals move along `step`, by rank-T products that are never formed.

        Forward, a layer returns $D^\top H h$ more; backward, its input receives
        $H^\top D \delta$ more.
        """
        return jax.vmap(lambda one, s: self._tangents(theta, moved, one, s, step))(x, signals)

    def step(self, signals: Signals, output: Int[Array, ""]) -> Step:
        """The direction of one output, from the signals of its sample alone, with size zero."""
        D = tuple(delta[0, output] for delta in signals.delta)
        rest = jax.tree.map(lambda g: g[0, output], signals.rest)
        return Step(jnp.zeros((), D[0].dtype), D, tuple(h[0] for h in signals.h), rest)

    def gram(self, a: Signals, b: Signals) -> Float[Array, "N_a N_b"]:
        """K^(2) of two batches: Gram matrices of inputs and of signals, multiplied."""
        n, m, k = len(a.h[0]), len(b.h[0]), self.outputs
        total = jnp.zeros((n, k, m, k), a.h[0].dtype)
        for ha, da, hb, db, biased in zip(a.h, a.delta, b.h, b.delta, self.biased, strict=True):
            inputs = jnp.einsum("ati,bsi->atbs", ha, hb) + float(biased)
            signals = jnp.einsum("akto,blso->aktbls", da, db)
            total = total + jnp.einsum("atbs,aktbls->akbl", inputs, signals)
        for ga, gb in zip(jax.tree.leaves(a.rest), jax.tree.leaves(b.rest), strict=True):
            flat = ga.reshape(n * k, -1) @ gb.reshape(m * k, -1).T
            total = total + flat.reshape(total.shape)
        return total.reshape(n * k, m * k)

    def numbers(self, theta: PyTree[Array]) -> int:
        """About how many numbers the signals of one sample are."""
        linears = _linears(theta)
        h = sum(linears[layer].weight.shape[1] for layer in self.layers)
        rest = sum(a.size for a in jax.tree.leaves(rest_of(theta)))
        return h + self.outputs * (sum(self.widths) + rest)

    def _evaluate(self, theta, rest, moved, additions, x) -> tuple[Array, tuple[Array, ...]]:
        """Outputs, and the inputs of each call, with something added to what each call returns."""
        tape = Tape(additions, moved)
        for step in moved:
            rest = jax.tree.map(lambda a, g, s=step: a + s.size * g, rest, step.rest)
        out = _tapped(self.network, theta, rest, tape)(x)
        return out.reshape(-1), tuple(tape.h)

    def _pulled(self, theta, moved, x, additions, rest, received) -> tuple:
        """Inputs of each call, and for each output its derivatives by additions and by rest.

        `received` (k, in) per call is added to what flows back into the inputs of each call.
        """
        evaluate = lambda e, r: self._evaluate(theta, r, moved, e, x)  # noqa: E731
        (_, h), pull = jax.vjp(evaluate, additions, rest)
        units = jnp.eye(self.outputs, dtype=x.dtype)
        delta, gradients = jax.vmap(lambda unit, g: pull((unit, g)))(units, received)
        return h, delta, gradients

    def _atrest_of(self, theta, x) -> tuple:
        """Nothing added forward, the other parameters as they are, nothing received backward."""
        linears = _linears(theta)
        additions = tuple(jnp.zeros(width, x.dtype) for width in self.widths)
        received = tuple(
            jnp.zeros((self.outputs, linears[layer].weight.shape[1]), x.dtype)
            for layer in self.layers
        )
        return additions, rest_of(theta), received

    def _signals(self, theta, moved, x) -> Signals:
        return self._by_layer(*self._pulled(theta, moved, x, *self._atrest_of(theta, x)))

    def _tangents(self, theta, moved, x, signals: Signals, step: Step) -> Signals:
        linears = _linears(theta)
        forward, backward = [], []
        for layer, call in self._calls():
            h, delta = signals.h[layer][call], signals.delta[layer][:, call]
            forward.append(moved_output(linears[layer], step, layer, h))
            backward.append((delta @ step.D[layer].T) @ step.H[layer])
        moving = (tuple(forward), step.rest, tuple(backward))
        pulled = lambda e, r, g: self._pulled(theta, moved, x, e, r, g)  # noqa: E731
        return self._by_layer(*jax.jvp(pulled, self._atrest_of(theta, x), moving)[1])

    def _by_layer(self, h, delta, rest) -> Signals:
        used: list[list[int]] = [[] for _ in self.biased]
        for call, layer in enumerate(self.layers):
            used[layer].append(call)
        return Signals(
            tuple(jnp.stack([h[c] for c in calls]) for calls in used),
            tuple(jnp.stack([delta[c] for c in calls], axis=1) for calls in used),
            rest,
        )

    def _calls(self) -> Iterator[tuple[int, int]]:
        """For each call, its layer and which call of that layer it is."""
        for c, layer in enumerate(self.layers):
            yield layer, self.layers[:c].count(layer)


def tap(network: Network, theta: PyTree[Array], one: Array, outputs: int) -> TappedNetwork:
    """Find the calls of the linear layers by evaluating shapes."""
    tape = Tape(None, ())

    def probe(at: PyTree[Array], x: Array) -> Array:
        out = _tapped(network, at, rest_of(at), tape)(x)
        tape.h.clear()
        return out

    try:
        with jax.checking_leaks():  # an input recorded inside of scan or jit has no value outside
            jax.eval_shape(probe, theta, one)
    except Exception as error:  # inside vmap, scan or jit, or by hand: whatever the module does
        raise ValueError(
            "`model` must call its `eqx.nn.Linear` layers one input at a time and outside of scan, "
            f"jit and checkpoint to be taken apart, but does not ({type(error).__name__})."
        ) from error
    if any(_is_shared(m) for m in jax.tree.leaves(network.static, is_leaf=_is_shared)):
        raise ValueError("`model` must not share parameters by `eqx.nn.Shared` to be taken apart.")
    linears = _linears(theta)
    if set(tape.layers) != set(range(len(linears))):
        raise ValueError("`model` must call each of its `eqx.nn.Linear` layers to be taken apart.")
    widths = tuple(linears[layer].weight.shape[0] for layer in tape.layers)
    biased = tuple(linear.bias is not None for linear in linears)
    return TappedNetwork(network, outputs, tuple(tape.layers), widths, biased)


def moved_output(linear: eqx.nn.Linear, step: Step, layer: int, h: Array) -> Array:
    r"""What the layer returns more, $D^\top H h$, and its bias's part."""
    T = (step.H[layer] @ h) + float(linear.bias is not None)
    return T @ step.D[layer]


def _is_shared(node: Any) -> bool:
    return isinstance(node, eqx.nn.Shared)


def _is_linear(node: Any) -> bool:
    return isinstance(node, eqx.nn.Linear)


def _linears(theta: PyTree[Array]) -> list[eqx.nn.Linear]:
    return [m for m in jax.tree.leaves(theta, is_leaf=_is_linear) if _is_linear(m)]


def rest_of(theta: PyTree[Array]) -> PyTree[Array]:
    """The parameters that are in no linear layer."""
    return jax.tree.map(lambda m: None if _is_linear(m) else m, theta, is_leaf=_is_linear)


def _tapped(network: Network, theta: PyTree[Array], rest: PyTree[Array], tape: Tape) -> PyTree:
    model = eqx.combine(rest, theta, network.static)
    layers = count()
    return jax.tree.map(
        lambda m: Tapped(m, next(layers), tape) if _is_linear(m) else m, model, is_leaf=_is_linear
    )
