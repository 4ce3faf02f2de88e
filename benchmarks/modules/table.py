"""The table of verdicts, as Markdown, and its counts."""

import collections
import platform
from importlib.metadata import version
from typing import NamedTuple

#: What the words of the table mean, in its order.
MEANINGS = {
    "right": "the numbers of our own nested derivatives",
    "aside": "the same, after a warning of nthsim's that says which other way it takes",
    "told": "other numbers, with a word in the result on why they are off",
    "says so": "no numbers, but one sentence of nthsim's that says why",
    "WRONG": "other numbers, in silence",
    "raw": "an error that nthsim did not foresee: JAX's, or the module's own",
    "no end": "nothing within the time there is",
    "no truth": "the module itself, or the script's own derivatives, fail: nothing is compared",
}

#: The words that make the table fail.
FAULTS = ("WRONG", "raw", "no end", "no truth")

METHODS = ("structured", "nested", "auto")
COLUMNS = (*(f"K{r} {m}" for r in (2, 3) for m in METHODS), "flow", "dense", "series")


class Row(NamedTuple):
    """A module of a file with its verdicts, [word, detail] by column, or one under "all"."""

    file: str
    name: str
    wrapper: str
    cells: dict[str, list[str]]

    def cell(self, column: str) -> list[str]:
        """The verdict on one computation."""
        return self.cells.get(column) or self.cells["all"]


def table(rows: list[Row]) -> str:
    """All of it."""
    return "\n\n".join([_head(rows), _verdicts(rows), _notes(rows), _counts(rows)]) + "\n"


def _head(rows: list[Row]) -> str:
    foreign = {row.file for row in rows if not row.file.startswith("own_")}
    taken = ", ".join(f"{name} {version(name)}" for name in ("jax", "equinox"))
    words = "\n".join(f"- **{word}**: {meaning}." for word, meaning in MEANINGS.items())
    return f"""# Modules

What `make foreign` prints: {len(rows)} Equinox modules, {_by_others(rows)} of them from
{len(foreign)} packages by others, in float64 on {taken}, Python
{platform.python_version()}. Each computation is compared with nested derivatives of the script's
own on the module's plain parameters (`benchmarks/modules/oracle.py`): the kernels $K^{{(2)}}$ and
$K^{{(3)}}$ by each method, exact gradient flow, and order 3 of the hierarchy as dense tensors and
as a series. "auto" is told that these small networks are large, so that it chooses as it does
there.

{words}"""


def _by_others(rows: list[Row]) -> int:
    return sum(not row.file.startswith("own_") for row in rows)


def _verdicts(rows: list[Row]) -> str:
    short = [c.replace("K2", "K²").replace("K3", "K³") for c in COLUMNS]
    lines = [
        f"| package | module | {' | '.join(short)} |",
        "|" + "---|" * (len(COLUMNS) + 2),
    ]
    for row in rows:
        package = "" if row.file.startswith("own_") else row.file
        cells = " | ".join(_shown(row.cell(column)) for column in COLUMNS)
        lines.append(f"| {package} | {row.name} | {cells} |")
    return "\n".join(lines)


def _shown(cell: list[str]) -> str:
    word, detail = cell
    return f"**{word}** {detail.split(':')[0]}" if word in ("WRONG", "raw") else word


def _notes(rows: list[Row]) -> str:
    lines = ["## Sentences, wrappers and ways"]
    for row in rows:
        notes = [row.wrapper] if row.wrapper else []
        derivatives, _ = row.cells.get("derivatives", ("forward", ""))
        if derivatives != "forward":
            notes.append(f"$K^{{(3)}}$ compared with derivatives taken {derivatives}")
        said: dict[str, list[str]] = collections.defaultdict(list)
        for column in COLUMNS:
            word, detail = row.cell(column)
            if word in ("aside", "told", "says so", "raw", "no truth"):
                said[f"{word}: {detail}"].append(column)
        notes += [f"{', '.join(columns)} {sentence}" for sentence, columns in said.items()]
        lines += [f"- {row.name}: {'; '.join(notes)}"] if notes else []
    return "\n".join([lines[0], "", *lines[1:]])


def _counts(rows: list[Row]) -> str:
    lines = ["## Counts", "", f"| | {' | '.join(MEANINGS)} |", "|" + "---|" * (len(MEANINGS) + 1)]
    for column in (*COLUMNS, None):
        chosen = COLUMNS if column is None else (column,)
        words = collections.Counter(row.cell(c)[0] for row in rows for c in chosen)
        lines.append(f"| {column or 'all'} | {' | '.join(str(words[w]) for w in MEANINGS)} |")
    return "\n".join(lines)
