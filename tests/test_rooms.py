"""The plan of the house: a room imports only rooms below it, and no file imports itself again."""

import ast
from graphlib import TopologicalSorter
from itertools import groupby
from pathlib import Path

import pytest

import nthsim

#: The floors, from the ground up; rooms of one floor do not know each other.
FLOORS = (
    ("models", "solvers"),
    ("inputs", "network", "results"),
    ("kernels",),
    ("budget",),
    ("dynamics",),
    ("comparison", "scaling"),
    ("cli",),
)

ROOMS = [name for floor in FLOORS for name in floor]

#: Floors of files above the ground, and within one room there.
MOST_FLOORS, MOST_INSIDE = 17, 5


def package() -> Path:
    assert nthsim.__file__ is not None
    return Path(nthsim.__file__).parent


def room(module: str) -> str:
    return module.split(".")[0]


def modules() -> dict[str, Path]:
    """All files in rooms, such as "network.layers"."""
    files = [path for name in ROOMS for path in sorted((package() / name).glob("*.py"))]
    return {f"{path.parent.name}.{path.stem}": path for path in files}


def imported(path: Path) -> set[str]:
    """The modules of nthsim that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        assert "nthsim" not in names, f"{path} imports the public face"
        found |= {name.removeprefix("nthsim.") for name in names if name.startswith("nthsim.")}
    return {f"{name}.__init__" if name in ROOMS else name for name in found} & set(modules())


def test_every_file_is_in_a_room():
    top = {path.name for path in package().iterdir() if path.name != "__pycache__"}
    assert top == {"__init__.py", "__init__.pyi", "py.typed"} | set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_room_imports_only_rooms_below_it(name):
    below = set()
    for floor in FLOORS[: next(i for i, floor in enumerate(FLOORS) if name in floor)]:
        below |= set(floor)
    known = {one: imported(path) for one, path in modules().items() if room(one) == name}
    assert known
    reached = {f"{one} -> {other}" for one in known for other in known[one] if room(other) != name}
    assert {arrow for arrow in reached if room(arrow.split(" -> ")[1]) not in below} == set()


def test_no_file_imports_itself_by_way_of_others():
    graph = {one: imported(path) for one, path in modules().items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert sorted(order) == sorted(graph)


def test_floors_of_files_are_few():
    files = {one: path for one, path in modules().items() if room(one) not in FLOORS[0]}
    graph = {one: imported(path) & set(files) for one, path in files.items()}
    total, inside = {}, {}
    for one in TopologicalSorter(graph).static_order():
        total[one] = 1 + max((total[other] for other in graph[one]), default=0)
        near = [inside[other] for other in graph[one] if room(other) == room(one)]
        inside[one] = 1 + max(near, default=0)
    assert max(total.values()) <= MOST_FLOORS
    for name, ones in groupby(sorted(inside), key=room):
        assert max(inside[one] for one in ones) <= MOST_INSIDE, name
