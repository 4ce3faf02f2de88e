"""Modules of classes that no other process can import, sent by value."""

import abc
import pickle
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, Float

pytest.importorskip("cloudpickle")
from nthsim.scaling.parcels import packed


def classes() -> tuple[type, type, type]:
    """An abstract class, one that Equinox initialises, and one that does so itself."""

    class Base(eqx.Module):
        scale: eqx.AbstractVar[float]
        kind: ClassVar[str] = "base"

        @abc.abstractmethod
        def __call__(self, x: Array) -> Array: ...

        def scaled(self, x: Array) -> Array:
            return self.scale * x

    class Made(Base):
        weight: Float[Array, "1 d"] = eqx.field(converter=jnp.asarray)
        scale: float = eqx.field(static=True, default=0.5)
        offset: float = 0.25

        def __call__(self, x: Array) -> Array:
            return jnp.tanh(self.weight @ x)[0] + self.offset

        def twin(self) -> "Made":
            return Made(self.weight)  # pyright: ignore[reportCallIssue]

    class Own(Made):
        layer: eqx.nn.Linear  # pyright: ignore[reportGeneralTypeIssues]
        again: "Own | None"  # pyright: ignore[reportGeneralTypeIssues]

        def __init__(self, key: Array, *, depth: int = 1):
            self.weight = jr.normal(key, (1, 3))
            self.scale, self.offset = 2.0, 0.0
            self.layer = eqx.nn.Linear(3, 3, key=key)
            self.again = Own(key, depth=depth - 1) if depth else None

        @property
        def inner(self) -> Array:
            return self.layer.weight

        def __call__(self, x: Array) -> Array:
            deeper = 0.0 if self.again is None else self.again(x)
            return self.scaled(super().__call__(self.layer(x)) + self.inner.sum()) + deeper

    return Base, Made, Own


@pytest.mark.parametrize("kind", ["made", "own"])
def test_module_of_a_local_class_computes_the_same_after_its_journey(kind):
    _, Made, Own = classes()
    model = Made(np.ones((1, 3))) if kind == "made" else Own(jr.key(0))
    copy = pickle.loads(packed(model))
    x = jr.normal(jr.key(1), (3,))
    assert type(copy) is not type(model)
    assert type(copy).__qualname__ == type(model).__qualname__
    assert copy.scale == model.scale
    for one, other in zip(jax.tree.leaves(copy), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(copy(x), model(x))
    np.testing.assert_array_equal(
        eqx.filter_grad(lambda m: m(x))(copy).weight,
        [*eqx.filter_grad(lambda m: m(x))(model).weight],
    )


def test_local_classes_can_be_built_and_are_as_abstract_as_before():
    Base, Made, Own = pickle.loads(packed(classes()))
    assert issubclass(Own, Made)
    assert Base.kind == "base"
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(Made(np.eye(3)[:1]).twin()(x), Made(np.eye(3)[:1])(x))
    np.testing.assert_array_equal(Own(jr.key(0), depth=0)(x), classes()[2](jr.key(0), depth=0)(x))
    with pytest.raises(TypeError, match="abstract"):
        Base()
