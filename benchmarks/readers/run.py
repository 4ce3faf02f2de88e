"""Files of nthsim through readers by others: every number and every label, compared.

Writes a table; a reader that this machine lacks is named as not run. Fails where one differs.
"""

import argparse
import json
import math
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from read import READERS

HERE = Path(__file__).parent

KINDS = ("trajectory", "comparison", "scaling", "cell")

Found = dict[str, list[Any]]

#: Of a reader that this machine lacks.
NOT_RUN = "not run"


def run(words: Sequence[str | Path], seconds: int = 300) -> str:
    """What a program prints."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}"
        raise RuntimeError(said.splitlines()[-1][:120])
    return done.stdout


def by_python(reader: str) -> Callable[[Path], Found]:
    """One of the packages that `read.py` knows."""
    return lambda path: json.loads(run([sys.executable, HERE / "read.py", reader, path]))


def by_copy(*words: str) -> Callable[[Path], Found]:
    """What a program makes of a file, read with netCDF4-python; IN and OUT stand for the files."""

    def read(path: Path) -> Found:
        with tempfile.TemporaryDirectory() as folder:
            again = Path(folder) / "again.nc"
            places = {"IN": path, "OUT": again, "CDL": Path(folder) / "a.cdl"}
            for line in " ".join(words).split(";"):
                asked = [str(places.get(word, word)) for word in line.split()]
                if ">" in asked:
                    Path(asked[-1]).write_text(run(asked[: asked.index(">")]))
                else:
                    run(asked)
            return by_python("netCDF4")(again)

    return read


def by_lines(*words: str | Path) -> Callable[[Path], Found]:
    """A script that prints one line for each variable or axis: a path, an axis, values."""

    def read(path: Path) -> Found:
        found: Found = {}
        for line in run([*words, path]).splitlines():
            name, axis, values = line.split("\t")
            found[f"{name}@{axis}" if axis else name] = [_number(v) for v in values.split("|")]
        return found

    return read


def listed_once(read: Callable[[Path], Found]) -> Callable[[Path], Found]:
    """By a reader that lists the labels which groups repeat from the root there alone."""

    def again(path: Path) -> Found:
        found = read(path)
        for name in [name for name in found if "@" in name and "/" in name]:
            variable, axis = name.split("@")
            group = variable.rpartition("/")[0]
            if axis in found and f"{group}/{axis}" not in found:
                found |= {f"{group}/{axis}": found[axis], f"{group}/{axis}@{axis}": found[name]}
        return found

    return again


def _number(word: str) -> Any:
    try:
        return float(word)
    except ValueError:
        return math.nan if word in ("NA", "NaN", "") else word


def compared(found: Found, true: Found) -> str:
    """How many numbers and labels are right; or the first that are not, or are missing."""
    wrong = [name for name, values in true.items() if not _same(found.get(name), values)]
    if wrong:
        kind = "missing" if wrong[0] not in found else "other values"
        return f"**{len(wrong)} of {len(true)} differ**, first {wrong[0]}: {kind}"
    labels = sum("@" in name for name in true)
    return f"{len(true) - labels} variables, {labels} axes"


def _same(one: list[Any] | None, other: list[Any]) -> bool:
    if one is None or len(one) != len(other):
        return False
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


def compliance(path: Path) -> str:
    """What compliance-checker says of CF-1.8."""
    checker = Path(sys.executable).with_name("compliance-checker")
    done = subprocess.run(
        [checker, "--test=cf:1.8", path], capture_output=True, text=True, timeout=300, check=False
    )
    if "All tests passed!" in done.stdout:
        return "all tests passed"
    remarks = [line for line in done.stdout.splitlines() if line.startswith("* ")]
    return f"**{len(remarks)} remarks**, first: {remarks[0][2:]}" if remarks else "**no report**"


def cfchecks(path: Path) -> str:
    """What cfchecker says of CF-1.8; the lists of names that it would fetch are of no concern."""
    import compliance_checker

    data = Path(compliance_checker.__file__).parent / "data"
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.xml"
        empty.write_text(
            "<table><version_number>0</version_number><date>none</date>"
            '<entry id="none"></entry></table>'
        )
        names = data / "cf-standard-name-table.xml"
        checker = Path(sys.executable).with_name("cfchecks")
        words = [checker, "-v", "1.8", "-s", names, "-a", empty, "-r", empty, path]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    counts = re.findall(r"^(FATAL ERRORS|ERRORS|WARNINGS)\b.*: (\d+)$", done.stdout, re.MULTILINE)
    if not counts:
        last = (done.stderr.strip() or done.stdout.strip() or "no report").splitlines()[-1]
        return f"**{last[:100]}**"
    told = ", ".join(f"{count} {name.lower()}" for name, count in counts)
    grave = any(int(count) for name, count in counts if "ERROR" in name)
    return f"**{told}**" if grave else told


def readers() -> dict[str, tuple[str, Callable[[Path], Found]]]:
    """All by name: what must be there for it to run, and how it reads."""
    found: dict[str, tuple[str, Callable[[Path], Found]]] = {
        f"ncdump and ncgen {_told('ncdump')}": (
            "ncgen", by_copy("ncdump -p 9,17 IN > CDL ; ncgen -4 -o OUT CDL"),
        ),
        f"NCO, ncks {_told('ncks', '--version')}": ("ncks", by_copy("ncks -O -h IN OUT")),
        f"R, ncdf4 {_told('Rscript', '-e', TELL_R)}": (
            "Rscript", listed_once(by_lines("Rscript", HERE / "read.R")),
        ),
        f"Octave, netcdf {_told('octave-cli', '--eval', TELL_OCTAVE)}": (
            "octave-cli", by_lines("octave-cli", "--no-gui", "--quiet", HERE / "read.m"),
        ),
    }  # fmt: skip
    for name in READERS:
        package = "h5netcdf" if "h5netcdf" in name else name.partition(" ")[0]
        shown = f"{name.replace(' ', ', engine ')} {_version(package)}"
        found[shown] = (sys.executable, by_python(name))
    return found


TELL_R = 'cat(as.character(packageVersion("ncdf4")))'
TELL_OCTAVE = 'printf("%s", pkg("list", "netcdf"){1}.version)'


def _told(program: str, *words: str) -> str:
    """The version that a program tells of itself."""
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    text = (done.stdout or done.stderr).split("version")[-1].split()
    return text[0].strip('"') if text else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def rows(folder: Path) -> list[list[str]]:
    """A row for each reader, with a cell for each kind of file."""
    found = []
    for name, (needs, read) in readers().items():
        cells = []
        for kind in KINDS:
            if shutil.which(needs) is None:
                cells.append(NOT_RUN)
                continue
            true = json.loads((folder / f"{kind}.json").read_text())
            try:
                cells.append(compared(read(folder / f"{kind}.nc"), true))
            except (RuntimeError, subprocess.TimeoutExpired, ValueError, OSError) as error:
                cells.append(f"**fails**: {str(error).splitlines()[-1]}")
        found.append([name, *cells])
        print(*found[-1], sep="\n    ", file=sys.stderr, flush=True)
    for package, check in (("compliance-checker", compliance), ("cfchecker", cfchecks)):
        cells = [check(folder / f"{kind}.nc") for kind in KINDS]
        found.append([f"{package} {_version(package)}, CF-1.8", *cells])
        print(*found[-1], sep="\n    ", file=sys.stderr, flush=True)
    return found


def page(found: list[list[str]]) -> str:
    """The page that tells of it."""
    head = ["reader", *(f"{kind}.nc" for kind in KINDS)]
    lines = [head, ["---"] * len(head), *found]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = (HERE / "page.md").read_text()
    return text.format(table=table, python=platform.python_version(), nthsim=_version("nthsim"))


def main() -> int:
    """Write, read, compare and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to write the page; printed if left out")
    parser.add_argument("--folder", type=Path, help="files written before, by written.py")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as new:
        folder = asked.folder or Path(new)
        if asked.folder is None:
            run([sys.executable, HERE / "written.py", folder], seconds=1200)
        found = rows(folder)
    text = page(found)
    if asked.out is None:
        print(text)
    else:
        asked.out.write_text(text)
    return int("**" in "".join(cell for row in found for cell in row))


if __name__ == "__main__":
    sys.exit(main())
