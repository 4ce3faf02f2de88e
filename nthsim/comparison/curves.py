"""The curves that there are, and the words that files and the command line know them by."""

import dataclasses
from collections.abc import Mapping, Sequence
from numbers import Number
from types import MappingProxyType
from typing import Any

import jax.random as jr
import numpy as np

from nthsim.budget.choice import Needs
from nthsim.budget.size import Size
from nthsim.dynamics.curve import EXACT, Curve
from nthsim.dynamics.descent import Descent
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.limit_flow import LimitKernel
from nthsim.dynamics.modified import Modified
from nthsim.dynamics.noisy import Noisy
from nthsim.dynamics.optimiser import NAMED, is_word
from nthsim.dynamics.perturbation import Perturbation
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Run
from nthsim.dynamics.start import Start
from nthsim.dynamics.taylor import Taylor
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.integers import shown

#: What curves may not be called, as tables and files have it already.
RESERVED = (EXACT, "exact", "parameters", "trained parameters", "bounds", "certificate")

#: The curves that there are, by the words for them on the command line, in the order of tables.
CURVES: Mapping[str, type[Curve]] = MappingProxyType(
    {
        "order": Order,
        "taylor": Taylor,
        "limit": LimitKernel,
        "perturbation": Perturbation,
        "descent": Descent,
        "modified": Modified,
        "noisy": Noisy,
    }
)

#: What follows some of these words, after a dash.
EXAMPLES = {"taylor": "-1", "descent": "-sgd:0.1", "modified": "-0.1", "noisy": "-0.1:8"}


def checked_curves(curves: object) -> tuple[Curve, ...]:
    """What a user handed in as curves, integers being orders; once each, orders first.

    Raises:
        ValueError: When `curves` is no sequence of such, holds none, or one in two ways.
    """
    listed = curves if isinstance(curves, Sequence) else np.asarray(curves).tolist()
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise ValueError(
            "`curves` must be a sequence of orders and other curves, such as (2, 3, Taylor(1)), "
            f"but is {curves!r}."
        )
    found: dict[str, Curve] = {}
    for each in listed:
        if isinstance(each, str):
            raise ValueError(
                "`curves` must hold orders and curves such as LimitKernel(), but holds the word "
                f"{each!r}."
            )
        if isinstance(each, type):
            raise ValueError(
                f"`curves` must hold curves such as Taylor(1), but holds the class {each.__name__}."
            )
        if not (isinstance(each, Curve | Number) or hasattr(each, "__index__")):
            raise ValueError(
                f"`curves` must hold orders and curves such as Taylor(1), but holds {shown(each)}."
            )
        curve = each if isinstance(each, Curve) else Order(each)
        if curve.key in RESERVED or "/" in curve.key:
            names = ", ".join(map(repr, RESERVED))
            raise ValueError(
                f"`curves` must not be called {names}, nor with a /, but one is called "
                f"{curve.key!r}."
            )
        if found.setdefault(curve.key, curve) != curve:
            raise ValueError(
                f"`curves` must hold each curve once, but holds {curve.key} in two ways."
            )
    kinds = list(CURVES.values())
    place = lambda c: kinds.index(type(c)) if type(c) in kinds else len(kinds)  # noqa: E731
    return tuple(sorted(found.values(), key=lambda c: (place(c), _number(c))))


def named_curve(text: str) -> Curve:
    """The curve that a word such as "limit", or one with more to it as "taylor-1", stands for.

    Raises:
        ValueError: When there is none.
    """
    word, dash, more = text.partition("-")
    kind = CURVES.get(word)
    if kind is Descent and dash:
        if not is_word(more):
            raise ValueError(
                f"`curves` must name an optimiser after descent-, one of {', '.join(NAMED)}, and "
                f"its rate, such as 'descent-sgd:0.1', but one is {text!r}."
            )
        return Descent(more)
    if kind is Noisy and dash:
        return _noisy(text, more)
    numbered = kind is not None and _numbered(kind)
    if kind in (None, Order, Descent, Noisy) or numbered != _is_number(more):
        names = [name for name, other in CURVES.items() if other is not Order]
        listed = ", ".join(repr(f"{name}{EXAMPLES.get(name, '')}") for name in names)
        raise ValueError(f"`curves` must be words such as {listed}, but one is {text!r}.")
    if not numbered:
        return kind()  # pyright: ignore[reportCallIssue]
    value = float(more)
    return kind(int(value) if value.is_integer() else value)  # pyright: ignore[reportCallIssue]


def _noisy(text: str, more: str) -> Noisy:
    """Of a rate and a batch size; paths are drawn by key 0."""
    rate, _, batch = more.partition(":")
    if not (_is_number(rate) and batch.isdecimal()):
        raise ValueError(
            "`curves` must name a rate and the points in a batch after noisy-, such as "
            f"'noisy-0.1:8', but one is {text!r}."
        )
    return Noisy(float(rate), int(batch), key=jr.key(0))


def _numbered(kind: type[Curve]) -> bool:
    """Whether a number tells curves of a kind apart."""
    return any(field.type in (int, float) for field in dataclasses.fields(kind))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class UnknownCurve(Curve):
    """What stands for a curve of a user's own in a file, of which that keeps the numbers only."""

    name: str

    @property
    def key(self) -> str:
        """As it was."""
        return self.name

    def check(self, problem: Problem) -> None:
        """It computes nothing.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"`curves` must be known to compute this again, but of {self.name} a file keeps the "
            "numbers only: call `compare` with it. Files know what is made of words, as "
            'Descent("sgd:0.1") is.'
        )

    def check_memory(self, size: Size) -> None:
        """It takes none."""

    def needs(self, size: Size) -> Needs:
        """Nothing."""
        return Needs(moving=0, frozen=0, peak=0, kernels=0, side=0)

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """It has none but the one in the file."""
        raise NotImplementedError


def facts_of(curve: Curve) -> dict[str, Any]:
    """A curve as JSON can hold it; one of a user's own by its key."""
    fields = {f.name: getattr(curve, f.name) for f in dataclasses.fields(curve)}
    facts = {k: v for k, v in fields.items() if k != "choice" and v is not None}
    known = all(isinstance(v, str | int | float) for v in facts.values())
    for word, kind in CURVES.items():
        if type(curve) is kind and known:  # as functions and random keys are not
            return {"curve": word} | facts
    return {"curve": None, "name": curve.key}


def curve_of(facts: Mapping[str, Any]) -> Curve:
    """The curve that `facts_of` described."""
    kind = UnknownCurve if facts["curve"] is None else CURVES[facts["curve"]]
    return kind(**{k: v for k, v in facts.items() if k != "curve"})


def _number(curve: Curve) -> int:
    numbers = [getattr(curve, f.name) for f in dataclasses.fields(curve)]
    return next((number for number in numbers if isinstance(number, int)), 0)
