"""The demos, run as a reader would, at small size."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import nthsim as nth

DEMOS = Path(__file__).parent.parent / "demos"


def run(name: str, folder: Path, *sizes: str) -> str:
    """What a demo prints, once it has ended well."""
    done = subprocess.run(
        [sys.executable, DEMOS / f"{name}.py", *sizes, "--out", folder / "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compare_orders_prints_its_table_and_writes_figure_and_results(tmp_path):
    said = run("compare_orders", tmp_path, "--n-train", "4", "--n-test", "2", "--width", "8")
    study = nth.Comparison.load(tmp_path / "out" / "orders.nc")
    assert study.orders == (2, 3, 4)
    assert study.model.width == 8
    # The last line and a blank one before it say where the files are.
    assert said.splitlines()[:-2] == str(study).splitlines()
    assert (tmp_path / "out" / "orders.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "sizes", "families"),
    [
        ("width_scaling", "--widths 4 --orders 3", ("network",)),
        ("depth_contrast", "--depths 1 --width 4", ("FCN", "ResNet")),
        ("orthogonal_init", "--widths 4", ("gaussian", "orthogonal")),
    ],
)
def test_study_prints_its_table_and_writes_figure_and_results(
    name, sizes, families, tmp_path, monkeypatch, capsys
):
    words = [name, *sizes.split(), "--seeds", "2", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    # In this process, where what all of them compile is there already.
    runpy.run_path(str(DEMOS / f"{name}.py"), run_name="__main__")
    study = nth.Scaling.load(tmp_path / "out" / f"{name}.nc")
    assert study.families == families
    assert len(study.seeds) == 2
    assert capsys.readouterr().out.splitlines()[:-2] == str(study).splitlines()
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "sizes", "row"),
    [
        ("limit_gap", "--n-train 4 --n-test 2 --widths 8", "\nlimit kernel "),
        ("perturbation", "--widths 8 --seeds 1", "\n8 "),
    ],
)
def test_demo_prints_its_table_and_writes_its_figure(name, sizes, row, tmp_path):
    assert row in run(name, tmp_path, *sizes.split())
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
