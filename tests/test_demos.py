"""The demos, run as a reader would, at small size."""

import os
import subprocess
import sys
from pathlib import Path

import nthsim as nth

DEMOS = Path(__file__).parent.parent / "demos"


def test_compare_orders_prints_its_table_and_writes_figure_and_results(tmp_path):
    sizes = ["--n-train", "4", "--n-test", "2", "--width", "8"]
    done = subprocess.run(
        [sys.executable, DEMOS / "compare_orders.py", *sizes, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stderr
    study = nth.Comparison.load(tmp_path / "out" / "orders.nc")
    assert study.orders == (2, 3, 4)
    assert study.model.width == 8
    # The last line and a blank one before it say where the files are.
    assert done.stdout.splitlines()[:-2] == str(study).splitlines()
    assert (tmp_path / "out" / "orders.png").read_bytes().startswith(b"\x89PNG")
