"""What people write around layers: questions, surgery, sharing, loops, branches."""

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn
from written import Listing, linear, two

LIST = Listing()
add = LIST.add


def mixed(a, b, c, *_):
    """A list of layers and norms, as people keep them."""
    norm = nn.LayerNorm(6, use_weight=False, use_bias=False)
    return [linear(3, 6, a), norm, linear(6, 6, b), linear(6, "scalar", c)]


@add("isinstance chooses the activation", mixed)
def _(parts, x):
    for i, part in enumerate(parts):
        x = part(x)
        if isinstance(part, nn.Linear) and i < 3:
            x = jnp.tanh(x)
    return x


@add("type is chooses the activation", mixed)
def _(parts, x):
    for part in parts:
        x = part(jnp.tanh(x) if type(part) is nn.Linear else x)
    return x


@add("match chooses the activation", mixed)
def _(parts, x):
    for part in parts:
        match part:
            case nn.Linear(out_features="scalar"):
                x = part(x)
            case nn.Linear():
                x = jnp.tanh(part(x))
            case _:
                x = 0.5 * part(x)
    return x


@add("getattr of out_features, with a default", mixed)
def _(parts, x):
    for part in parts:
        x = part(x) / jnp.sqrt(jnp.size(x))
        x = jnp.tanh(x) if getattr(part, "out_features", 0) == 6 else x
    return x


@add("hasattr of weight", two)
def _(parts, x):
    for part in parts.values():
        x = jnp.tanh(x) if hasattr(part, "weight") else x
        x = part(x)
    return x


@add("a bias frozen by stop_gradient", two)
def _(parts, x):
    frozen = lambda p: jax.lax.stop_gradient(p) if p.ndim == 1 else p  # noqa: E731
    a, b = (jax.tree.map(frozen, parts[name]) for name in "ab")
    return b(jnp.tanh(a(x)))


@add("a bias added by hand, of a layer called without it", two)
def _(parts, x):
    bare = eqx.tree_at(lambda at: at.bias, parts["a"], jnp.zeros(5))
    return parts["b"](jnp.tanh(bare(x) + 2 * parts["a"].bias))


@add("a weight scaled by tree_at", two)
def _(parts, x):
    scaled = eqx.tree_at(lambda at: at.weight, parts["a"], replace_fn=lambda w: w / jnp.sqrt(3))
    return parts["b"](jnp.tanh(scaled(x)))


@add("weight standardisation", two)
def _(parts, x):
    w = parts["a"].weight
    w = (w - w.mean(axis=1, keepdims=True)) / (w.std(axis=1, keepdims=True) + 1e-3)
    return parts["b"](jnp.tanh(eqx.tree_at(lambda at: at.weight, parts["a"], w)(x)))


@add("a weight read besides, for a regulariser", two)
def _(parts, x):
    penalty = 0.1 * jnp.sum(parts["a"].weight ** 2)
    return parts["b"](jnp.tanh(parts["a"](x))) + penalty


@add("a weight used without calling its layer", two)
def _(parts, x):
    return parts["b"](jnp.tanh(parts["a"].weight @ x))


@add("one layer called twice", lambda a, b, c, *_: {"a": linear(3, 3, a), "b": linear(3, 2, b)})
def _(parts, x):
    return parts["b"](jnp.tanh(parts["a"](jnp.tanh(parts["a"](x)))))


@add("a weight used forward and transposed", lambda a, b, *_: {"a": linear(3, 5, a)})
def _(parts, x):
    a = parts["a"]
    return a.weight.T @ jnp.tanh(a(x))


@add("layers that take part in a tree.map with themselves", two)
def _(parts, x):
    mean = jax.tree.map(lambda p: 0.5 * (p + jnp.tanh(p)), parts)
    return mean["b"](jnp.tanh(mean["a"](x)))


@add("an explicit nn.Linear.__call__", two)
def _(parts, x):
    return nn.Linear.__call__(parts["b"], jnp.tanh(type(parts["a"]).__call__(parts["a"], x)))


@add("vmap over positions", two, shape=(4, 3))
def _(parts, x):
    return parts["b"](jnp.tanh(jax.vmap(parts["a"])(x)).sum(axis=0))


@add(
    "filter_vmap over an ensemble of layers",
    lambda a, b, *_: {
        "a": eqx.filter_vmap(lambda k: linear(3, 4, k))(jax.random.split(a, 3)),
        "b": linear(12, "scalar", b),
    },
)
def _(parts, x):
    hidden = eqx.filter_vmap(lambda layer, x: layer(x), in_axes=(eqx.if_array(0), None))
    return parts["b"](jnp.tanh(hidden(parts["a"], x)).reshape(-1))


@add("jax.checkpoint around a layer", two)
def _(parts, x):
    return parts["b"](jax.checkpoint(lambda h: jnp.tanh(parts["a"](h)))(x))


@add("filter_checkpoint with layers as arguments", two)
def _(parts, x):
    return parts["b"](eqx.filter_checkpoint(lambda layer, h: jnp.tanh(layer(h)))(parts["a"], x))


@add("filter_jit inside of the forward pass", two)
def _(parts, x):
    return parts["b"](eqx.filter_jit(lambda layer, h: jnp.tanh(layer(h)))(parts["a"], x))


@add("cond on the input, a layer in each branch", two)
def _(parts, x):
    a = parts["a"]
    bent = jax.lax.cond(x[0] > 0, lambda h: jnp.tanh(a(h)), lambda h: jnp.sin(a(2 * h)), x)
    return parts["b"](bent)


@add(
    "switch on the input between layers",
    lambda a, b, c, *_: {"parts": [linear(3, 4, a), linear(3, 4, b)], "last": linear(4, 2, c)},
)
def _(parts, x):
    branches = [lambda h, part=part: part(h) for part in parts["parts"]]
    return parts["last"](jnp.tanh(jax.lax.switch((x[0] > 0).astype(int), branches, x)))


@add("where between two layers", two)
def _(parts, x):
    h = parts["a"](x)
    return jnp.where(x[0] > 0, parts["b"](jnp.tanh(h)), parts["b"](jnp.sin(h)))


@add("a fori_loop of one layer", lambda a, b, *_: {"a": linear(3, 3, a), "b": linear(3, 2, b)})
def _(parts, x):
    return parts["b"](jax.lax.fori_loop(0, 3, lambda _, h: jnp.tanh(parts["a"](h)), x))


@add("a layer in a dataclass-like module that renames it", two)
def _(parts, x):
    class Block(eqx.Module):
        inner: nn.Linear

        def __call__(self, x):
            return jnp.tanh(self.inner(x))

    return parts["b"](Block(parts["a"])(x))


ENTRIES = LIST.entries
