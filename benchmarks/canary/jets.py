"""Truncated power series of arrays and their gradients, in NumPy: nothing here is compiled."""

import math
from collections.abc import Callable, Sequence

import numpy as np

Jet = list[np.ndarray | None]
Pull = Callable[[Jet], Jet]


class Node:
    """A series of arrays in one variable, lowest power first; None stands for zeros.

    All but parameters have the samples on their first axis.
    """

    def __init__(self, tape: "Tape", jet: Jet, parents: Sequence[tuple["Node", Pull]] = ()) -> None:
        self.tape, self.jet, self.parents = tape, jet, parents
        self.gradient: Jet = [None] * len(jet)
        tape.nodes.append(self)

    def __add__(self, other: "Node") -> "Node":
        jet = [_plus(a, b) for a, b in zip(self.jet, other.jet, strict=True)]
        parents = [(p, lambda g, p=p: [_like(term, p) for term in g]) for p in (self, other)]
        return Node(self.tape, jet, parents)

    def __mul__(self, factor: float) -> "Node":
        def times(jet: Jet) -> Jet:
            return [None if term is None else factor * term for term in jet]

        return Node(self.tape, times(self.jet), [(self, times)])

    def __getitem__(self, index: np.ndarray) -> "Node":
        """Entries of the last axis; `index` may have any shape and repeat itself."""

        def pull(g: Jet) -> Jet:
            return [None if term is None else self._scattered(term, index) for term in g]

        taken = [None if term is None else term[..., index] for term in self.jet]
        return Node(self.tape, taken, [(self, pull)])

    def reshaped(self, *shape: int) -> "Node":
        """Other axes behind the samples."""

        def to(jet: Jet, *shape: int) -> Jet:
            return [None if term is None else term.reshape(len(term), *shape) for term in jet]

        assert self.jet[0] is not None
        own = self.jet[0].shape[1:]
        return Node(self.tape, to(self.jet, *shape), [(self, lambda g: to(g, *own))])

    def _scattered(self, term: np.ndarray, index: np.ndarray) -> np.ndarray:
        assert self.jet[0] is not None
        whole = np.zeros(self.jet[0].shape)
        np.add.at(whole, (..., index), term)
        return whole


class Tape:
    """What was computed, up to some power; `per_sample` keeps gradients of samples apart."""

    def __init__(self, degree: int, *, per_sample: bool = False) -> None:
        self.degree, self.per_sample = degree, per_sample
        self.nodes: list[Node] = []
        self.parameters: list[Node] = []

    def constant(self, array: np.ndarray) -> Node:
        """A series that is its first term."""
        return Node(self, [np.asarray(array, np.float64), *[None] * self.degree])

    def parameter(self, path: Sequence[np.ndarray]) -> Node:
        """A parameter along a path, of which powers beyond the degree are dropped."""
        missing = [None] * (self.degree + 1 - len(path))
        self.parameters.append(Node(self, [*path[: self.degree + 1], *missing]))
        return self.parameters[-1]

    def gradients(self, output: Node, seed: np.ndarray) -> list[Jet]:
        """The gradient of the sum of `output` times `seed`, parameter by parameter."""
        for node in self.nodes:
            node.gradient = [None] * (self.degree + 1)
        output.gradient = [seed, *[None] * self.degree]
        for node in reversed(self.nodes):
            for parent, pull in node.parents:
                moved = zip(parent.gradient, pull(node.gradient), strict=True)
                parent.gradient = [_plus(a, b) for a, b in moved]
        return [node.gradient for node in self.parameters]


def einsum(formula: str, a: Node, b: Node) -> Node:
    """A product of two, samples named n; each index of one is in the other or in the result."""
    tape = a.tape
    inputs, out = formula.split("->")
    left, right = inputs.split(",")

    def onto(node: Node, own: str, other: str) -> str:
        apart = tape.per_sample and node in tape.parameters
        return f"{out},{other}->{'n' * apart}{own}"

    to_left, to_right = onto(a, left, right), onto(b, right, left)
    parents = [
        (a, lambda g: product(to_left, g, b.jet)),
        (b, lambda g: product(to_right, g, a.jet)),
    ]
    return Node(tape, product(formula, a.jet, b.jet), parents)


def total(formula: str, a: Node) -> Node:
    """Sums over the axes that are left out: `total("nij->n", a)`."""
    own, out = formula.split("->")
    assert a.jet[0] is not None
    sizes = dict(zip(own, a.jet[0].shape, strict=True))
    summed = "".join(letter for letter in own if letter not in out)
    ones = a.tape.constant(np.ones([sizes[letter] for letter in summed]))
    return einsum(f"{own},{summed}->{out}", a, ones)


def apply(derivatives: Callable[[np.ndarray, int], list[np.ndarray]], a: Node) -> Node:
    """A function of each number, by its value and as many derivatives as asked for."""
    assert a.jet[0] is not None
    degree = a.tape.degree
    values = derivatives(a.jet[0], degree + 1)
    slope = _composed(values[1:], a.jet)
    return Node(
        a.tape,
        _composed(values[: degree + 1], a.jet),
        [(a, lambda g: product("...,...->...", g, slope))],
    )


def product(formula: str, a: Jet, b: Jet) -> Jet:
    """The product of two series, as many terms as they have."""
    found: Jet = [None] * len(a)
    for i, left in enumerate(a):
        for j, right in enumerate(b[: len(a) - i]):
            if left is not None and right is not None:
                term = np.einsum(formula, left, right, optimize=True)
                found[i + j] = _plus(found[i + j], term)
    return found


def _composed(values: list[np.ndarray], jet: Jet) -> Jet:
    moved: Jet = [None, *jet[1:]]
    power: Jet = [np.ones_like(values[0]), *[None] * (len(jet) - 1)]
    found: Jet = [values[0], *[None] * (len(jet) - 1)]
    for k, value in enumerate(values[1:], 1):
        power = product("...,...->...", power, moved)
        terms = [None if p is None else value / math.factorial(k) * p for p in power]
        found = [_plus(a, b) for a, b in zip(found, terms, strict=True)]
    return found


def _plus(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _like(term: np.ndarray | None, node: Node) -> np.ndarray | None:
    """A gradient without the axes that a sum has stretched."""
    if term is None or node.jet[0] is None:
        return None
    shape = node.jet[0].shape
    if node in node.tape.parameters:
        kept = int(node.tape.per_sample)
        term = term.sum(axis=tuple(range(kept, term.ndim - len(shape))))
        shape = term.shape[:kept] + shape
    stretched = tuple(i for i, size in enumerate(shape) if size != term.shape[i])
    return term.sum(axis=stretched, keepdims=True)
