"""Searches for programs that XLA compiles wrongly, through the public functions of nthsim.

Each case is a random network, random data of random size and one public call; what the call returns
is compared with NumPy in float64, where nothing is compiled. A case is drawn by its number, so that
`--case 1234` repeats it. Records are lines of JSON in a file for each version of Python and JAX;
the same command again goes on from there. Status 1 if any case was WRONG or not finite.

`--unprotected` calls no nthsim but `jax.jit` of the same networks: what it finds is XLA's alone.
"""

import argparse
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from canary.cases import run
from canary.worker import Worker, finished

BAD = ("WRONG", "not finite", "crashed")


def main() -> int:
    """Run what is asked for and print what was found."""
    asked = _flags()
    if asked.case is not None:
        record = run(asked.case, unprotected=asked.unprotected)
        print(json.dumps(record, indent=1, default=float, ensure_ascii=False))
        return int(record["verdict"] in BAD)
    kind = "unprotected-" if asked.unprotected else ""
    version = f"{kind}python{platform.python_version()}-jax{jax.__version__}"
    path = asked.out / f"{version}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _read(path)
    done = {record["case"] for record in known}
    numbers = (i for i in range(asked.first, asked.first + asked.cases) if i not in done)
    with path.open("a") as file:
        for record in _computed(numbers, asked):
            known.append(record)
            file.write(json.dumps(record, default=float, ensure_ascii=False) + "\n")
            file.flush()
            if record["verdict"] in BAD:
                print(_line(record), flush=True)
    print(_summary(known, version))
    return int(any(record["verdict"] in BAD for record in known))


def _computed(numbers: Iterator[int], asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Hand cases to processes and take their records, in the order in which they are done."""
    until = time.monotonic() + 60 * asked.minutes
    workers = [Worker(asked.timeout, unprotected=asked.unprotected) for _ in range(asked.workers)]
    try:
        idle = workers
        while True:
            for worker in idle:
                number = next(numbers, None) if time.monotonic() < until else None
                if number is not None:
                    worker.start(number)
            busy = [worker for worker in workers if worker.case is not None]
            if not busy:
                return
            idle = finished(busy)
            for worker in idle:
                yield worker.taken()
    finally:
        for worker in workers:
            worker.end()


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", type=int, help="repeat this case alone and print its record")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--minutes", type=float, default=600.0, help="start no case after these")
    parser.add_argument("--workers", type=int, default=2, help="how many processes")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for a case")
    parser.add_argument("--unprotected", action="store_true", help="jax.jit instead of nthsim")
    parser.add_argument("--out", type=Path, default=Path("results/canaries"))
    return parser.parse_args()


def _read(path: Path) -> list[dict[str, Any]]:
    """What earlier runs wrote; cut lines and cases that timed out are computed again."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [record for record in records if record["verdict"] != "timed out"]


def _summary(records: list[dict[str, Any]], version: str) -> str:
    """Verdicts by call and precision, the worst error of the right ones, and each bad case."""
    rows = Counter((r["call"], r["precision"], r["verdict"]) for r in records)
    lines = [f"{len(records)} cases under {version}"]
    for (call, precision, verdict), count in sorted(rows.items()):
        lines.append(f"  {call:14} {precision:8} {verdict:12} {count:5}")
    over = max((r.get("over", 0.0) for r in records if r["verdict"] == "right"), default=0.0)
    lines.append(f"right ones came within {over:.2g} of what they may differ by")
    bad = [record for record in records if record["verdict"] in BAD]
    lines += [f"{len(bad)} bad cases", *map(_line, bad)]
    others = [record for record in records if record["verdict"] in ("raised", "timed out")]
    return "\n".join([*lines, f"{len(others)} raised or timed out", *map(_line, others)])


def _line(record: dict[str, Any]) -> str:
    shown = ("call", "precision", "network", "activation", "n", "d", "m", "k", "loss", "solver")
    facts = ", ".join(f"{name} {record[name]}" for name in shown if name in record)
    why = record.get("reason", "")
    if "error" in record:
        why = f"{record['of']} off by {record['error']:.2e} {why}"
    return f"  case {record['case']}: {record['verdict']}: {facts}: {why}"


if __name__ == "__main__":
    sys.exit(main())
