"""Whole networks of kinds that people train: implicit, physical, mixed, low-rank, half-precise."""

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn
from written import Listing, linear, two

LIST = Listing()
add = LIST.add


@jax.custom_jvp
def bent(z):
    """A tanh with a derivative of its own."""
    return jnp.tanh(z)


bent.defjvp(lambda z, t: (jnp.tanh(z[0]), t[0] * (1 - jnp.tanh(z[0]) ** 2)))


@jax.custom_vjp
def fused(z):
    """A tanh that keeps its output for the way back."""
    return jnp.tanh(z)


fused.defvjp(lambda z: (jnp.tanh(z), jnp.tanh(z)), lambda h, g: (g * (1 - h**2),))


@jax.custom_vjp
def reversal(z):
    """The identity whose gradient is turned around on the way back."""
    return z


reversal.defvjp(lambda z: (z, None), lambda _, g: (-0.5 * g,))


@add("an activation with custom_jvp", two)
def _(parts, x):
    return parts["b"](bent(parts["a"](x)))


@add("an activation with custom_vjp", two)
def _(parts, x):
    return parts["b"](fused(parts["a"](x)))


@add("a gradient reversed by custom_vjp", two)
def _(parts, x):
    return parts["b"](reversal(jnp.tanh(parts["a"](x))))


@add("a straight-through rounding", two)
def _(parts, x):
    h = jnp.tanh(parts["a"](x))
    return parts["b"](h + jax.lax.stop_gradient(jnp.round(4 * h) / 4 - h))


@add("a power with a floating exponent", two)
def _(parts, x):
    return parts["b"](0.1 * parts["a"](x) ** 3.0)


@add(
    "LoRA beside a frozen layer",
    lambda a, b, c, *_: {
        "a": linear(3, 5, a),
        "down": linear(3, 1, b, use_bias=False),
        "up": linear(1, 5, c, use_bias=False),
        "b": linear(5, 2, a),
    },
)
def _(parts, x):
    frozen = jax.lax.stop_gradient(parts["a"])
    return parts["b"](jnp.tanh(frozen(x) + parts["up"](parts["down"](x))))


@add(
    "a hypernetwork makes another's weight",
    lambda a, b, c, *_: {"hyper": nn.MLP(3, 12, 4, 1, jnp.tanh, key=a), "b": linear(4, 2, b)},
)
def _(parts, x):
    weight = parts["hyper"](x).reshape(4, 3)
    made = eqx.tree_at(lambda at: at.weight, nn.Linear(3, 4, False, key=jax.random.key(0)), weight)
    return parts["b"](jnp.tanh(made(x)))


@add(
    "a fixed point, unrolled",
    lambda a, b, c, *_: (linear(4, 4, a), linear(3, 4, b), linear(4, 2, c)),
)
def _(parts, x):
    inner, into, last = parts
    z = jnp.zeros(4)
    for _ in range(4):
        z = jnp.tanh(0.5 * inner(z) + into(x))
    return last(z)


@add(
    "a fixed point by while_loop, differentiated implicitly",
    lambda a, b, c, *_: (linear(4, 4, a), linear(3, 4, b), linear(4, 2, c)),
)
def _(parts, x):
    inner, into, last = parts
    residual = lambda z: z - jnp.tanh(0.5 * inner(z) + into(x))  # noqa: E731
    solve = lambda f, z: jax.lax.while_loop(  # noqa: E731
        lambda z: jnp.abs(f(z)).max() > 1e-15, lambda z: z - f(z), z
    )
    tangent = lambda g, y: jnp.linalg.solve(jax.jacobian(g)(y), y)  # noqa: E731
    return last(jax.lax.custom_root(residual, jnp.zeros(4), solve, tangent))


@add("a while_loop whose length the input decides", two)
def _(parts, x):
    x = jax.lax.while_loop(lambda h: jnp.sum(h**2) > 1, lambda h: h / 2, x)
    return parts["b"](jnp.tanh(parts["a"](x)))


@add(
    "Fourier features that must not train, as a NumPy array",
    lambda a, b, *_: {"B": jax.device_get(jax.random.normal(a, (4, 3))), "b": linear(8, 2, b)},
)
def _(parts, x):
    angles = parts["B"] @ x
    return parts["b"](jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]))


@add(
    "Fourier features that must not train, by stop_gradient",
    lambda a, b, *_: {"B": jax.random.normal(a, (4, 3)), "b": linear(8, 2, b)},
)
def _(parts, x):
    angles = jax.lax.stop_gradient(parts["B"]) @ x
    return parts["b"](jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]))


@add(
    "a spectral layer with complex numbers in between",
    lambda a, b, c, *_: {"re": linear(3, 3, a), "im": linear(3, 3, b), "b": linear(5, 2, c)},
    shape=(5,),
)
def _(parts, x):
    modes = jnp.fft.rfft(x)
    moved = parts["re"](modes.real) + 1j * parts["im"](modes.imag)
    return parts["b"](jnp.tanh(jnp.fft.irfft(moved, 5)))


@add("layers called on complex numbers", two)
def _(parts, x):
    z = parts["a"](jnp.exp(1j * x))
    return parts["b"](jnp.abs(z))


@add("a network differentiated by its input", two)
def _(parts, x):
    u = lambda x: parts["b"](jnp.tanh(parts["a"](x)))  # noqa: E731
    return u(x) + jnp.trace(jax.hessian(u)(x))


@add(
    "a mean of an ensemble in a list",
    lambda *keys: [nn.MLP(3, 2, 3, 1, jnp.tanh, key=k) for k in keys[:3]],
)
def _(parts, x):
    return sum(one(x) for one in parts) / len(parts)


@add(
    "a mixture of experts, softly gated",
    lambda a, b, c, *_: {"experts": [linear(3, 2, a), linear(3, 2, b)], "gate": linear(3, 2, c)},
)
def _(parts, x):
    weights = jax.nn.softmax(parts["gate"](x))
    return sum(w * jnp.tanh(e(x)) for w, e in zip(weights, parts["experts"], strict=True))


@add(
    "a mixture of experts, the best alone",
    lambda a, b, c, *_: {
        "experts": eqx.filter_vmap(lambda k: linear(3, 2, k))(jax.random.split(a, 3)),
        "gate": linear(3, 3, b),
        "last": linear(2, "scalar", c),
    },
)
def _(parts, x):
    gate = jax.nn.softmax(parts["gate"](x))
    best = jnp.argmax(gate)
    expert = jax.tree.map(lambda leaf: leaf[best], parts["experts"])
    return gate[best] * parts["last"](jnp.tanh(expert(x)))


@add("deep sets", lambda a, b, *_: {"a": linear(2, 5, a), "b": linear(5, 2, b)}, shape=(4, 2))
def _(parts, x):
    return parts["b"](jnp.tanh(jax.vmap(parts["a"])(x)).mean(axis=0))


@add(
    "a graph network on a fixed graph",
    lambda a, b, *_: {
        "A": jnp.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]),
        "a": linear(2, 4, a),
        "b": linear(4, "scalar", b),
    },
    shape=(3, 2),
)
def _(parts, x):
    h = jnp.tanh(parts["A"].astype(x.dtype) @ jax.vmap(parts["a"])(x))
    return jnp.sum(jax.vmap(parts["b"])(h))


@add(
    "a residual network with a scan by hand", lambda a, b, c, *_: [linear(3, 3, a), linear(3, 3, b)]
)
def _(parts, x):
    for part in parts:
        x = x + jnp.tanh(part(x)) / jnp.sqrt(2)
    return x[:2]


@add("half precision in between", two, rounding=2.0**-10)
def _(parts, x):
    h = jnp.tanh(parts["a"](x)).astype(jnp.float16)
    return parts["b"](h.astype(x.dtype))


@add("layers called in single precision", two, rounding=2.0**-23)
def _(parts, x):
    single = jax.tree.map(lambda p: p.astype(jnp.float32), parts["a"])
    return parts["b"](jnp.tanh(single(x.astype(jnp.float32))).astype(x.dtype))


@add(
    "a numerical solve within: a linear system of a layer's weight",
    lambda a, b, *_: {"a": linear(3, 3, a)},
)
def _(parts, x):
    return jnp.linalg.solve(3 * jnp.eye(3) + parts["a"].weight, x)[:2]


ENTRIES = LIST.entries
