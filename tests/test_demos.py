"""The demos and the README, run as a reader would; the demos at small size."""

import runpy
import sys
from pathlib import Path

import pytest
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

import nthsim as nth

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a demo in this process, where what all of them compile is there already."""

    def said(name: str, *sizes: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *sizes, "--out", str(tmp_path / "out")])
        runpy.run_path(str(ROOT / "demos" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return said


def test_compare_orders_prints_its_table_and_writes_figure_and_results(run, tmp_path):
    # Of the README's size: what one of the two compiles serves the other.
    said = run("compare_orders", "--n-train", "10", "--n-test", "20", "--width", "64")
    study = nth.Comparison.load(tmp_path / "out" / "orders.nc")
    assert list(study.curves) == ["order 2", "order 3", "order 4"]
    assert study.asked.model.width == 64
    # The last line and a blank one before it say where the files are.
    assert said.splitlines()[:-2] == str(study).splitlines()
    assert (tmp_path / "out" / "orders.png").read_bytes().startswith(b"\x89PNG")


def test_blocks_of_the_readme_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = list(Document.parse(str(ROOT / "README.md"), PythonCodeBlockParser()).examples())
    assert len(examples) == 5
    for example in examples:
        example.evaluate()
    assert {path.name for path in tmp_path.iterdir()} == {"orders.png", "orders.nc", "widths.png"}


@pytest.mark.parametrize(
    ("name", "sizes", "families"),
    [
        ("width_scaling", "--widths 4 --orders 3", ("network",)),
        ("depth_contrast", "--depths 1 --width 4", ("FCN", "ResNet")),
        ("orthogonal_init", "--widths 4", ("gaussian", "orthogonal")),
        ("what_moves", "--widths 4", ("mup", "ntk", "standard")),
    ],
)
def test_study_prints_its_table_and_writes_figure_and_results(name, sizes, families, run, tmp_path):
    said = run(name, *sizes.split(), "--seeds", "2")
    study = nth.Scaling.load(tmp_path / "out" / f"{name}.nc")
    assert study.families == families
    assert len(study.seeds) == 2
    table = str(study).splitlines()
    assert said.splitlines()[: len(table)] == table
    aligned = [line.split(":")[0].strip() for line in said.splitlines() if "alignment" in line]
    assert aligned == (["ntk", "standard", "mup"] if name == "what_moves" else [])
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "sizes", "row"),
    [
        ("limit_gap", "--n-train 4 --n-test 2 --widths 8", "\nlimit kernel "),
        ("perturbation", "--widths 8 --seeds 1", "\n8 "),
        ("descent_beside_flow", "--width 8 --n-train 3", "\ndescent at 0.5 edge "),
    ],
)
def test_demo_prints_its_table_and_writes_its_figure(name, sizes, row, run, tmp_path):
    assert row in run(name, *sizes.split())
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
