"""Formulas that XLA takes for products and sums to be fused, and the same in NumPy series."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from canary import functions
from canary.functions import ACTIVATIONS
from canary.jets import Node, apply, einsum, total


class Form(eqx.Module):
    """A formula of one input and some arrays."""

    arrays: tuple[jax.Array, ...]
    formula: Callable[..., jax.Array] = eqx.field(static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Evaluate at one input."""
        return self.formula(x, *self.arrays)


def _dot(a: Node, b: Node) -> Node:
    return einsum("nj,nj->n", a, b)


def _map(W: Node, x: Node) -> Node:
    return einsum("ni,oi->no", x, W)


def _norm(W: Node, x: Node) -> Node:
    return total("nj->n", apply(functions.square, _map(W, x)))


def _attention(theta: list[Node], x: Node, tokens: int) -> Node:
    t = x.reshaped(tokens, 2)
    q, k, v = (einsum("nti,oi->nto", t, W) for W in theta[:3])
    weights = apply(functions.exponential, einsum("nto,nso->nts", q, k))
    sums = apply(functions.power(-1.0), total("nts->nt", weights))
    mixed = einsum("nts,nso->nto", einsum("nts,nt->nts", weights, sums), v)
    return einsum("no,o->n", total("nto->no", mixed), theta[3]) * (1 / tokens)


def _attend(x: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, a: jax.Array) -> jax.Array:
    t = x.reshape(-1, 2)
    return jnp.mean(jax.nn.softmax((t @ q.T) @ (t @ k.T).T, axis=-1) @ (t @ v.T), axis=0) @ a


def form(kind: str, name: str, sizes: tuple[int, int, int], rng: np.random.Generator, dtype: str):
    """The formula, of parameters of variance 1/d, and its twin."""
    d, m, k = sizes
    sigma, slopes = ACTIVATIONS[name]
    fixed = {"ones": np.ones((m, d)), "eye": np.eye(m, d), "fixed": rng.normal(size=(m, d))}
    c = fixed.get(kind)
    even, half = d - d % 2, d // 2 if d > 1 else 1
    one, many = (m, d), (k, m, d)
    table = {
        "|Wx|²": ([one], lambda x, W: jnp.sum((W @ x) ** 2), lambda p, x: _norm(p[0], x)),
        "|Wx|² vector": (
            [many],
            lambda x, W: jnp.sum((W @ x) ** 2, axis=-1),
            lambda p, x: total("nkj->nk", apply(functions.square, einsum("ni,kji->nkj", x, p[0]))),
        ),
        "az·1x": (  # a matrix of equal entries between two inputs
            [(half,)],
            lambda x, a: jnp.sum(a * x[:half] * (jnp.ones((half, d - half), x.dtype) @ x[half:])),
            lambda p, x: _dot(
                einsum("nj,j->nj", x[np.arange(half)], p[0]),
                _map(x.tape.constant(np.ones((half, d - half))), x[np.arange(half, d)]),
            ),
        ),
        "x·Ax": ([(d, d)], lambda x, A: x @ (A @ x), lambda p, x: _dot(x, _map(p[0], x))),
        "Ax·Bx": (
            [one, one],
            lambda x, A, B: jnp.sum((A @ x) * (B @ x)),
            lambda p, x: _dot(_map(p[0], x), _map(p[1], x)),
        ),
        "gated": (
            [one, one, (m,)],
            lambda x, A, B, b: jnp.sum((A @ x) * sigma(B @ x + b)),
            lambda p, x: _dot(_map(p[0], x), apply(slopes, _map(p[1], x) + p[2])),
        ),
        "(a·σ(Wx))²": (
            [one, (m,)],
            lambda x, W, a: (a @ sigma(W @ x)) ** 2,
            lambda p, x: apply(
                functions.square, einsum("nj,j->n", apply(slopes, _map(p[0], x)), p[1])
            ),
        ),
        "Gaussians": (
            [one, (m,)],
            lambda x, W, a: a @ jnp.exp(-jnp.sum((W - x) ** 2, axis=-1) / d),
            lambda p, x: einsum("nj,j->n", _bells(p[0], x, d), p[1]),
        ),
        "log Σ exp": (
            [one],
            lambda x, W: jnp.log(jnp.sum(jnp.exp(W @ x))),
            lambda p, x: apply(
                functions.logarithm,
                total("nj->n", apply(functions.exponential, _map(p[0], x))),
            ),
        ),
        "low rank": (
            [(m, 2), (2, d), (m,)],
            lambda x, U, V, a: a @ sigma(U @ (V @ x)),
            lambda p, x: einsum("nj,j->n", apply(slopes, _map(p[0], _map(p[1], x))), p[2]),
        ),
        "attention": (
            [(3, 2), (3, 2), (3, 2), (3,)],
            lambda x, *p: _attend(x[:even], *p),
            lambda p, x: _attention(p, x[np.arange(even)], even // 2),
        ),
        "Σ σ(Wx)": (
            [one],
            lambda x, W: jnp.sum(sigma(W @ x)),
            lambda p, x: total("nj->n", apply(slopes, _map(p[0], x))),
        ),
    }
    if c is not None:
        shapes, formula, twin = (
            [one],
            lambda x, W: jnp.sum((W @ x) * (jnp.asarray(c, x.dtype) @ x)),
            lambda p, x: _dot(_map(p[0], x), _map(x.tape.constant(c.astype(dtype)), x)),
        )
    else:
        shapes, formula, twin = table[kind]
    draws = (rng.normal(size=shape) / np.sqrt(shape[-1]) for shape in shapes)
    return Form(tuple(jnp.asarray(a, dtype) for a in draws), formula), twin


def _bells(W: Node, x: Node, d: int) -> Node:
    moved = W + x.reshaped(1, d) * -1.0
    return apply(functions.exponential, total("nji->nj", apply(functions.square, moved)) * (-1 / d))


#: As drawn, the suspect ones more often; "|Wx|² vector" has k outputs, the others one.
FORMS = (
    *("|Wx|²", "|Wx|²", "|Wx|²", "|Wx|² vector", "az·1x", "az·1x", "x·Ax", "Ax·Bx", "gated"),
    *("(a·σ(Wx))²", "Gaussians", "log Σ exp", "low rank", "attention", "Σ σ(Wx)"),
    *("ones", "ones", "eye", "fixed"),
)
