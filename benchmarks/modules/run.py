"""Every module through every computation; prints a table, fails where a number is wrong in silence.

Each module runs in a process of its own, so that none ends the table, and has so many seconds.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from table import FAULTS, Row, table

HERE = Path(__file__).parent


class Listed(NamedTuple):
    """A module, and the file that lists it."""

    file: str
    name: str
    wrapper: str


def files() -> list[str]:
    """All files that list modules: our own, and one for each package by others."""
    own = sorted(path.stem for path in HERE.glob("own_*.py"))
    return own + sorted(f"packages.{path.stem}" for path in (HERE / "packages").glob("*.py"))


def listed(file: str) -> list[Listed]:
    """The modules of a file; none, with a word about it, where its package cannot be imported."""
    done = _run([file], seconds=300)
    if done is None or done.returncode:
        last = "no end" if done is None else (done.stderr.strip().splitlines() or ["crashed"])[-1]
        print(f"{file} is left out: {last}", file=sys.stderr)
        return []
    return [Listed(file, name, wrapper) for name, wrapper in json.loads(done.stdout).items()]


def row(module: Listed, seconds: int, folder: Path) -> Row:
    """Run one module, or take what an earlier run has kept of it."""
    stem = re.sub(r"\W+", "_", f"{module.file}_{module.name}")
    kept, out = folder / f"{stem}.json", folder / f"{stem}.part"
    if kept.exists():
        return Row(module.file.split(".")[-1], module.name, module.wrapper, _read(kept))
    out.unlink(missing_ok=True)
    done = _run([module.file, module.name, str(out)], seconds)
    cells = _read(out) if out.exists() else {}
    if done is None:
        cells.setdefault("all", ["no end", f"{seconds} s"])
    elif done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        cells.setdefault("all", ["raw", last[:200]])
    else:
        out.replace(kept)
    words = collections.Counter(word for word, _ in cells.values())
    print(f"{module.file}: {module.name}: {dict(words)}", file=sys.stderr, flush=True)
    return Row(module.file.split(".")[-1], module.name, module.wrapper, cells)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _run(arguments: list[str], seconds: int) -> subprocess.CompletedProcess[str] | None:
    command = [sys.executable, str(HERE / "trial.py"), *arguments]
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **os.environ}
    try:
        return subprocess.run(
            command, timeout=seconds, env=quick, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return None


def main() -> None:
    """Run all, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="those to run; all if none is named")
    parser.add_argument("--out", type=Path, help="where the table is written besides")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=600, help="for each module")
    parser.add_argument("--name", help="only modules whose name this is part of", default="")
    parser.add_argument(
        "--keep", type=Path, help="a folder for results; what stands in it is not run again"
    )
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.workers) as pool, tempfile.TemporaryDirectory() as folder:
        folder = arguments.keep or Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        modules = [one for some in pool.map(listed, arguments.files or files()) for one in some]
        modules = [one for one in modules if arguments.name in one.name]
        run = lambda one: row(one, arguments.seconds, folder)  # noqa: E731
        rows = list(pool.map(run, modules))
    text = table(rows)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    sys.exit(any(word in FAULTS for one in rows for word, _ in one.cells.values()))


if __name__ == "__main__":
    main()
