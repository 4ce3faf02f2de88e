"""`nthsim scaling`: what it prints, keeps and shows again."""

import re
import shutil

import jax
import matplotlib as mpl
import numpy as np
import pytest

import nthsim as nth
from nthsim.cli.made import made_data, made_families, made_sizes
from nthsim.cli.main import main, parsed
from nthsim.cli.settings import ScalingSettings
from nthsim.results.record import Record
from nthsim.scaling.cells import Cell, Study

mpl.use("Agg")

SMALL = ["--data", "sphere:3", "--n-train", "2", "--n-test", "0", "--orders"]
SCALING = ["scaling", *SMALL, "--widths", "3", "4", "--depth", "1", "--seeds", "2", "--num-ts", "2"]


def made_up(self, cell: Cell) -> Record:
    """Power laws of the width; what a cell measures is tested with cells, and compiles long."""
    rows = np.array(cell.seeds)[:, None] + np.array([[1.0, cell.size**-1.0]])
    arrays = dict.fromkeys(("kernel_rms", "kernel_max", "kernel_mean", "drift"), rows)
    arrays |= {"initial_f": rows, "initial_kernels": rows[:, :, None] * rows[:, None]}
    facts = {"solver": "some steps", "stops": {}, "seconds": 1.0, "mark": self.mark(cell)}
    return Record(arrays, facts)


@pytest.fixture(autouse=True)
def _double():
    """The command sets JAX's precision, as it owns its process; here it does not."""
    yield
    jax.config.update("jax_enable_x64", True)


def settings_of(*words: str) -> ScalingSettings:
    command = parsed(["scaling", *SMALL, *words])
    assert isinstance(command, ScalingSettings)
    return command


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "compute", made_up)
        assert main([*SCALING, "--out", str(folder)]) == 0
    return folder


def test_scaling_writes_everything(saved):
    written = {path.name for path in saved.iterdir()}
    assert written == {"cells", "config.toml", "scaling.nc", "scaling.png", "table.txt"}
    kept = {path.name for path in (saved / "cells").iterdir()}
    assert kept == {"manifest.json", "fcn-3-seeds-0-1.nc", "fcn-4-seeds-0-1.nc"}
    assert nth.Scaling.load(saved / "scaling.nc").sizes.tolist() == [3, 4]


def test_finished_sweep_is_shown_by_its_folder(saved, tmp_path, capsys):
    assert main(["show", str(saved), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (saved / "table.txt").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"scaling.png", "table.txt"}


def test_folder_of_cells_with_a_result_among_them_is_shown_by_that(saved, tmp_path, capsys):
    # As in Python, where `out` may be the folder that results are saved in.
    shutil.copytree(saved / "cells", tmp_path, dirs_exist_ok=True)
    shutil.copy(saved / "scaling.nc", tmp_path / "orthogonal_init.nc")
    assert main(["show", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (saved / "table.txt").read_text()
    (tmp_path / "orthogonal_init.nc").unlink()
    assert main(["show", str(tmp_path)]) == 2
    assert "holds a sweep with 2 of 2 cells" in capsys.readouterr().err


def test_cells_of_a_sweep_are_not_opened_to_be_counted(saved, tmp_path, capsys):
    shutil.copytree(saved / "cells", tmp_path, dirs_exist_ok=True)
    for cell in tmp_path.glob("*.nc"):
        cell.write_bytes(cell.read_bytes()[:-100])
    assert main(["show", str(tmp_path)]) == 2
    assert "holds a sweep with 2 of 2 cells" in capsys.readouterr().err


def test_result_is_shown_beside_a_manifest_of_something_else(saved, tmp_path, capsys):
    shutil.copy(saved / "scaling.nc", tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert main(["show", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (saved / "table.txt").read_text()


def test_cell_is_no_result_and_those_that_are_get_listed(saved, capsys):
    cell = saved / "cells" / "fcn-3-seeds-0-1.nc"
    assert main(["show", str(cell)]) == 2
    assert capsys.readouterr().err == (
        f"nthsim: `FILE` must hold a Comparison, Trajectory or Scaling, but {cell} holds a Cell.\n"
    )


def test_same_command_computes_nothing_again(saved, capsys):
    # The table tells the seconds that all cells took.
    table = (saved / "table.txt").read_text()
    assert main(["scaling", "--config", str(saved / "config.toml"), "--out", str(saved)]) == 0
    assert capsys.readouterr().out == table


def test_damaged_cell_is_named_in_one_sentence(saved, tmp_path, capsys):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    cell = tmp_path / "cells" / "fcn-3-seeds-0-1.nc"
    cell.write_bytes(cell.read_bytes()[:-100])
    words = ["scaling", "--config", str(saved / "config.toml"), "--out", str(tmp_path)]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"nthsim: `--out` must hold whole cells of one study, but {cell} cannot be used: it must "
        "be an intact netCDF-4 file, but is cut short, damaged or changed; delete it to compute it "
        "anew.\n"
    )


def test_interrupted_sweep_tells_where_it_is_and_is_shown_so(tmp_path, monkeypatch, capsys):
    def interrupted(self, cell):  # as planning calls the network too
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "compute", interrupted)
    assert main([*SCALING, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert re.search(
        r"nthsim: interrupted; 0 of 2 cells are done, in .*cells, and the same c", said
    )
    assert main(["show", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "holds a sweep with 0 of 2 cells: the command that began it goes on" in said
    assert main(SCALING) == 1
    assert capsys.readouterr().err == "nthsim: interrupted; --out keeps what is done\n"


def test_rates_of_layers_go_along_with_each_network():
    command = settings_of("--depth", "1", "--rates", "0", "2")
    made = made_families(command, made_data(command), "width")["fcn"]
    net, rates = made(3, jax.random.key(0))
    assert (rates.layers[0].weight, rates.readout.weight) == (0.0, 2.0)
    assert net.layers[0].weight.shape == (3, 3)


def test_second_network_stands_beside_the_first():
    words = ["--model", "resnet", "--c-res", "0.5", "--beside", "fcn", "--depths", "1", "2"]
    command = settings_of(*words)
    assert made_sizes(command) == ("depth", (1, 2))
    families = made_families(command, made_data(command), "depth")
    nets = {name: make(2, jax.random.key(0)) for name, make in families.items()}
    assert list(nets) == ["resnet", "fcn"]
    assert [type(net).__name__ for net in nets.values()] == ["ResNet", "FCN"]
    assert nets["resnet"].c_res == 0.5


def test_widths_are_studied_unless_told_otherwise():
    assert made_sizes(settings_of()) == ("width", (16, 32, 64, 128))
