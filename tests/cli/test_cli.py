"""The command: what it prints, writes and returns; mistakes are in test_user_mistakes.py."""

import dataclasses
import functools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import get_args, get_type_hints

import equinox as eqx
import jax
import matplotlib as mpl
import numpy as np
import pytest
from failing import failing

import nthsim as nth
from nthsim.cli import settings
from nthsim.cli.made import MODELS, drawn_model, made_data
from nthsim.cli.main import main, parsed
from nthsim.cli.toml import NAMES, PLACES, as_toml
from nthsim.dynamics.hierarchy import METHODS
from nthsim.inputs.loss import LOSSES
from nthsim.models import FCN, ResNet
from nthsim.models.activation import ACTIVATIONS, normalisation
from nthsim.models.initialisation import INITIALISATIONS

mpl.use("Agg")

NETWORK = ["--width", "4", "--depth", "1"]
SMALL = [*NETWORK, "--n-train", "3", "--n-test", "2", "--data", "sphere:3"]
TINY = [*SMALL, "--t1", "1", "--num-ts", "3"]
# Orders higher than 2 compile for seconds; what the command does with them is the same.
COMPARE = ["compare", *TINY, "--orders", "2"]


@pytest.fixture(autouse=True)
def _double():
    """The command sets JAX's precision, as it owns its process; here it does not."""
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture
def network(monkeypatch):
    """Puts a network that fails behind --model; see tests/failing.py."""

    def put(error, after=-1):
        kind = failing(error, after)
        monkeypatch.setitem(MODELS, "fcn", kind)
        return kind

    return put


@pytest.fixture
def calls(network, capsys):
    """How often a command calls the network, whether it ends well or not."""

    def count(words):
        kind = network(None)
        main(words)
        capsys.readouterr()
        return len(kind.calls)

    return count


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    assert main([*COMPARE, "--out", str(folder)]) == 0
    return folder


def test_compare_prints_its_table_and_writes_everything(tmp_path, capsys):
    folder = tmp_path / "a" / "b"
    assert main([*COMPARE, "--out", str(folder)]) == 0
    said = capsys.readouterr()
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "orders.nc",
        "orders.png",
        "table.txt",
    }
    assert said.out == (folder / "table.txt").read_text()
    assert "order 2" in said.out
    assert said.err == f"nthsim: results are in {folder}\n"


def test_command_agrees_with_python(saved):
    study = nth.Comparison.load(saved / "orders.nc")
    data = nth.sphere(3, 2, dim=3)
    net = FCN(3, 4, 1, key=jax.random.key(0))
    again = nth.compare(net, data, (2,), np.linspace(0.0, 1.0, 3), certify=False)
    np.testing.assert_array_equal(study.exact.f, again.exact.f)
    np.testing.assert_array_equal(study.curve(2).f, again.curve(2).f)


def test_written_configuration_repeats_the_run(saved, tmp_path):
    assert main(["compare", "--config", str(saved / "config.toml"), "--out", str(tmp_path)]) == 0
    first, second = (nth.Comparison.load(path / "orders.nc") for path in (saved, tmp_path))
    np.testing.assert_array_equal(first.exact.f, second.exact.f)
    assert (saved / "config.toml").read_text() == (tmp_path / "config.toml").read_text()


def test_show_prints_the_table_again_and_draws_the_figure(saved, tmp_path, capsys):
    assert main(["show", str(saved / "orders.nc"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (saved / "table.txt").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"orders.png", "table.txt"}


def test_show_finds_all_results_in_a_folder_whatever_they_are_called(saved, tmp_path, capsys):
    folder, out = tmp_path / "mine", tmp_path / "out"
    folder.mkdir()
    study = nth.Comparison.load(saved / "orders.nc")
    study.exact.save(folder / "b.nc")
    (folder / "c.nc").write_text("no result")
    assert main(["show", str(folder)]) == 0
    flow = capsys.readouterr().out
    study.save(folder / "a.nc")
    assert main(["show", str(folder), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown == f"a.nc:\n\n{study}\n\nb.nc:\n\n{flow}\n"
    assert shown.rstrip("\n") == (out / "table.txt").read_text().rstrip("\n")
    assert {path.name for path in out.iterdir()} == {"a.png", "table.txt"}


def test_flow_is_printed_saved_and_shown_again(tmp_path, capsys):
    assert main(["flow", *TINY, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("exact gradient flow: reached t = 1")
    assert len(nth.Trajectory.load(tmp_path / "flow.nc").ts) == 3
    assert main(["show", str(tmp_path / "flow.nc")]) == 0
    assert capsys.readouterr().out == printed


def test_tilde_is_the_own_folder_where_a_shell_leaves_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.csv").write_text("a,b,y\n1,0,1\n0,2,-1\n3,1,1\n")
    (tmp_path / "own.toml").write_text('data = "~/own.csv"\nout = "~/from_toml"\nn_train = 3\n')
    words = ["--width", "3", "--n-test", "0", "--t1", "0.1", "--num-ts", "2"]
    assert main(["flow", *words, "--data=~/own.csv", "--n-train=3", "--out=~/from_flag"]) == 0
    assert main(["flow", *words, "--config=~/own.toml"]) == 0
    assert main(["show", "~/from_flag/flow.nc"]) == 0
    for name in ("from_flag", "from_toml"):
        assert nth.Trajectory.load(f"~/{name}/flow.nc").loss.shape == (2,)
    assert nth.Run([0.0], checkpoint="~/kept").checkpoint == tmp_path / "kept"


def test_kernels_are_printed_and_saved(tmp_path, capsys):
    words = ["kernels", *SMALL, "--orders", "2", "3"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert "K^(3)  3 x 3 x 3" in capsys.readouterr().out
    with np.load(tmp_path / "kernels.npz", allow_pickle=False) as kernels:
        assert set(kernels.files) == {"K2", "K3", "x", "y"}
        net = FCN(3, 4, 1, key=jax.random.key(0))
        np.testing.assert_array_equal(
            kernels["K3"], nth.kernel(net, jax.numpy.array(kernels["x"]), 3)
        )


def test_plan_says_what_does_not_fit(capsys):
    assert main(["plan", *TINY, "--orders", "2", "40", "--memory", "8", "--method", "dense"]) == 0
    assert "does not fit: at order 40" in capsys.readouterr().out


def test_rates_of_layers_are_those_of_the_run(capsys):
    small = ["--data", "sphere:3", "--n-train", "2", "--n-test", "1", "--width", "3"]
    flow = ["flow", *small, "--t1", "0.5", "--num-ts", "2"]

    def said(*words):
        status = main([*flow, *words])
        told = capsys.readouterr()
        return status, re.sub(r"[\d.]+ s\b", "", told.out), told.err

    assert said("--rates", "1", "1", "1")[:2] == said()[:2]
    assert said("--rates", "0", "1", "0.5")[1] != said()[1]
    assert main(["plan", *small, "--orders", "2", "--rates", "0", "1", "1", "--parameters"]) == 0
    assert ".layers[0].weight (3 x 3): its rate is 0" in capsys.readouterr().out
    sentence = "`--rates` must be 3 numbers, one for each hidden layer and the readout, but are 1."
    assert said("--rates", "1") == (2, "", f"nthsim: {sentence}\n")


def test_weight_decay_is_that_of_python(capsys, tmp_path):
    small = ["--data", "sphere:3", "--n-train", "2", "--n-test", "0", "--width", "3"]
    words = [*small, "--num-ts", "2", "--t1", "0.5", "--weight-decay", "0.2"]
    words += ["--decay-towards", "start"]
    assert main(["compare", *words, "--orders", "3", "--out", str(tmp_path)]) == 0
    assert main(["flow", *words, "--out", str(tmp_path)]) == 0
    study = nth.Comparison.load(tmp_path / "orders.nc")
    decay = nth.WeightDecay(0.2, "start")
    again = nth.compare(
        study.asked.model, study.asked.data, (3,), study.asked.run, regulariser=decay
    )
    np.testing.assert_array_equal(again.curve(3).f, study.curve(3).f)
    flow = nth.Trajectory.load(tmp_path / "flow.nc")
    np.testing.assert_array_equal(flow.f, study.exact.f)
    assert main(["plan", *words, "--orders", "2"]) == 0
    capsys.readouterr()
    assert main(["plan", *words, "--orders", "2", "--curves", "limit"]) == 2
    assert "`regulariser` must be left out for the limit kernel" in capsys.readouterr().err
    assert main(["flow", *small, "--weight-decay", "-1"]) == 2
    sentence = "nthsim: `--weight-decay` must be a number of at least 0, but is -1.0.\n"
    assert capsys.readouterr().err == sentence
    config = tmp_path / "config.toml"
    config.write_text("weight_decay = 0.1")
    assert main(["scaling", *small, "--config", str(config)]) == 2
    assert "must hold no weight_decay for this command" in capsys.readouterr().err


def test_momentum_is_that_of_python(capsys, tmp_path):
    small = ["--data", "sphere:3", "--n-train", "2", "--n-test", "0", "--width", "3"]
    words = [*small, "--num-ts", "2", "--t1", "0.5", "--momentum", "heavy-ball:0.5"]
    assert main(["compare", *words, "--orders", "2", "--out", str(tmp_path)]) == 0
    assert "squared_error; heavy-ball:0.5" in capsys.readouterr().out
    study = nth.Comparison.load(tmp_path / "orders.nc")
    again = nth.compare(
        study.asked.model, study.asked.data, (2,), study.asked.run, momentum=nth.HeavyBall(0.5)
    )
    np.testing.assert_array_equal(again.curve(2).f, study.curve(2).f)
    assert main(["plan", *words, "--orders", "3"]) == 0
    assert "momentum has no tensors above order 2" in capsys.readouterr().out
    assert main(["flow", *small, "--momentum", "heavy"]) == 2
    assert "`--momentum` must be a word such as heavy-ball:0.5" in capsys.readouterr().err


def test_ten_classes_make_ten_outputs(capsys):
    words = "flow --data digits --n-train 10 --n-test 0 --width 4 --depth 1 --num-ts 2 --t1 0.1"
    assert main([*words.split(), "--loss", "softmax_cross_entropy"]) == 0
    assert "train loss" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_data_come_from_files(suffix, tmp_path, capsys):
    path = tmp_path / f"points.{suffix}"
    x, y = np.random.default_rng(0).standard_normal((6, 3)), np.arange(6.0)
    if suffix == "npz":
        np.savez(path, x=x, y=y)
    else:
        np.savetxt(path, np.column_stack([x, y]), delimiter=",")
    assert main(["plan", *TINY, "--data", str(path)]) == 0
    assert "n = 3 training and 2 test points" in capsys.readouterr().out


def test_images_from_a_file_are_flattened(tmp_path, capsys):
    path = tmp_path / "images.npz"
    x, y = np.random.default_rng(0).standard_normal((5, 8, 8)), np.arange(5.0)
    np.savez(path, x=x, y=y)
    command = parsed(["flow", *TINY, "--data", str(path)])
    assert isinstance(command, settings.FlowSettings)
    data = made_data(command)
    assert (data.x.shape, drawn_model(command, data).in_size) == ((3, 64), 64)
    assert main(["flow", "--help"]) == 0
    assert "images in it are flattened" in " ".join(
        re.sub("│", " ", capsys.readouterr().out).split()
    )


def test_float32_is_the_whole_command(capsys):
    assert main(["flow", *TINY, "--precision", "float32"]) == 0
    assert "rtol 1e-04" in capsys.readouterr().out


def test_run_that_fails_keeps_and_shows_what_it_has(tmp_path, capsys):
    words = [*COMPARE, "--t1", "1000", "--max-steps", "5", "--out", str(tmp_path)]
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.err.endswith("nthsim: exact gradient flow: " + said.err.rpartition("flow: ")[2])
    assert "step limit of 5 reached" in said.err
    assert said.out == (tmp_path / "table.txt").read_text()
    assert len(nth.Comparison.load(tmp_path / "orders.nc").exact.ts) == 1


def test_interrupted_comparison_keeps_and_shows_what_it_has(tmp_path, capsys, network, calls):
    words = [*COMPARE, "--no-certify"]
    network(KeyboardInterrupt, after=calls(words) - 1)  # the last is for the kernels of order 2
    assert main([*words, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err.endswith("nthsim: interrupted, with 0 of 1 curves done\n")
    assert "exact flow" in said.out
    assert len(nth.Comparison.load(tmp_path / "orders.nc").exact.ts) == 3


@pytest.mark.parametrize(
    ("error", "why"), [(KeyboardInterrupt, "interrupted"), (MemoryError, "out of memory")]
)
def test_kernels_that_end_early_keep_those_that_are_done(
    error, why, tmp_path, capsys, network, calls
):
    # Two calls more, as the network is looked at twice before it is taken apart.
    network(error, after=calls(["kernels", *SMALL, "--orders", "2"]) + 2)
    words = ["kernels", *SMALL, "--out", str(tmp_path)]
    assert main(words) == 1
    assert capsys.readouterr().err.endswith(f"nthsim: {why} after 1 of 3 kernels\n")
    with np.load(tmp_path / "kernels.npz") as kernels:
        assert set(kernels.files) == {"K2", "x", "y"}


def test_interrupt_with_nothing_computed_is_no_traceback(capsys, network):
    network(KeyboardInterrupt)
    assert main(COMPARE) == 1
    assert capsys.readouterr().err == "nthsim: interrupted; there was nothing to keep\n"


def test_explicit_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('width = 8\nn-train = 5\norders = [2, 5]\nlog_times = true\nmodel = "resnet"\n')
    command = parsed(["compare", "--width", "9", "--config", str(path)])
    assert isinstance(command, settings.CompareSettings)
    assert (command.width, command.n_train, command.depth) == (9, 5, 2)
    assert (command.orders, command.log_times, command.model) == ((2, 5), True, "resnet")


def test_configuration_of_one_command_serves_another(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(as_toml(settings.CompareSettings(orders=(2, 7), rtol=1e-9, data='a"b.csv')))
    flow, kernels = (parsed([name, "--config", str(path)]) for name in ("flow", "kernels"))
    assert isinstance(flow, settings.FlowSettings)
    assert isinstance(kernels, settings.KernelsSettings)
    assert flow.rtol == 1e-9
    assert kernels.orders == (2, 7)
    assert flow.data.endswith('/a"b.csv')


def test_written_configuration_holds_every_setting():
    common = {"rtol": 1e-9, "atol": 1.0, "memory": "8", "c_sigma": "auto", "c_res": 0.5}
    common |= {"rates": (1.0, 0.5), "depth_exponent": 0.5}
    decay = {"weight_decay": 0.5, "decay_towards": "start", "momentum": "nesterov:3"}
    limits = dict.fromkeys(("until_loss", "until_gradient", "until_stalled", "until_seconds"), 1.0)
    wholes = (
        settings.CompareSettings(
            curves=("taylor-1", "limit"), checkpoint=Path("somewhere"), **common, **limits, **decay
        ),
        settings.ScalingSettings(
            widths=(4,), depths=(5,), kernels=3, beside="resnet", chunk=2, cluster="tcp:", **common
        ),
    )
    written = [set(tomllib.loads(as_toml(whole))) for whole in wholes]
    assert set.union(*written) == NAMES - set(PLACES)
    for whole, names in zip(wholes, written, strict=True):
        assert names == {field.name for field in dataclasses.fields(whole)} - set(PLACES)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("activation", ACTIVATIONS),
        ("init", INITIALISATIONS),
        ("loss", LOSSES),
        ("method", METHODS),
    ],
)
def test_choices_of_the_command_are_those_of_python(name, names):
    # Written out in `settings`, so that help does not wait for JAX.
    assert set(get_args(get_type_hints(settings.CompareSettings)[name])) == set(names)


@pytest.mark.parametrize(
    ("text", "count"),
    [("8", 8e9), ("8GB", 8e9), ("500 mb", 5e8), ("0.5", 5e8), ("1TB", 1e12), ("2e3kb", 2e6)],
)
def test_memory_is_read_with_and_without_its_unit(text, count):
    assert settings.in_bytes(text) == count


@pytest.mark.parametrize("words", [[], ["compare"], ["show"]], ids=" ".join)
def test_help_leaves_jax_alone(words):
    code = """
import sys
from nthsim.cli.main import main
for last in ("--help", "--widht"):
    assert main(sys.argv[1:] + [last]) == 2 * (last == "--widht")
assert not {"jax", "numpy", "matplotlib"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage: nthsim" in done.stdout
    assert done.stderr.startswith("nthsim: `")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        "compare --orders 1",
        "scaling --seeds 0",
        "scaling --chunk 0",
        "scaling --orders 2 4 --kernels 3",
        "flow --t1 -1",
    ],
)
def test_number_out_of_its_range_is_refused_without_jax(words):
    code = """
import sys
from nthsim.cli.main import main
assert main(sys.argv[1:]) == 2
assert not {"jax", "matplotlib", "scipy", "xarray"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.match("nthsim: `--(orders|seeds|chunk|kernels|t1)` must be ", done.stderr)


def test_mistake_that_is_not_explained_is_one_line_too(capsys, monkeypatch):
    # As if it were none that is known: each that was found since then is explained.
    monkeypatch.setattr("nthsim.cli.main.explained", lambda words: None)
    assert main(["flow", "--width", "many"]) == 2
    assert re.fullmatch(
        r"nthsim: [^│─]*'many'[^│─]*; see `nthsim flow --help`\.\n", capsys.readouterr().err
    )


def test_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nthsim {version('nthsim')}\n"


def test_unforeseen_error_is_one_line_unless_its_traceback_is_wanted(capsys, network, monkeypatch):
    network(RuntimeError("first line\nsecond line"))
    monkeypatch.delenv("NTHSIM_TRACEBACK", raising=False)
    assert main(COMPARE) == 1
    assert capsys.readouterr().err == "nthsim: failed: RuntimeError: first line second line\n"
    monkeypatch.setenv("NTHSIM_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="first line"):
        main(COMPARE)


@pytest.mark.parametrize("error", [MemoryError("too much"), RuntimeError("RESOURCE_EXHAUSTED: x")])
def test_memory_that_runs_out_is_one_line(error, capsys, network, monkeypatch):
    network(error)
    monkeypatch.delenv("NTHSIM_TRACEBACK", raising=False)
    assert main(COMPARE) == 1
    assert capsys.readouterr().err == f"nthsim: out of memory: {type(error).__name__}: {error}\n"


@pytest.fixture
def undrawn(monkeypatch):
    """A width whose weights no test could hold; the command must not try."""

    @functools.wraps(FCN)
    def drawing(*, key, **settings):
        with pytest.raises(jax.errors.TracerArrayConversionError):
            np.asarray(jax.random.key_data(key))
        return FCN(key=key, **settings)

    monkeypatch.setitem(MODELS, "fcn", drawing)
    return ["--width", "60000", "--data", "sphere:3", "--memory", "1GB"]


def test_plan_draws_no_weights(undrawn, capsys):
    assert main(["plan", *undrawn]) == 0
    assert "P = 3600240000 parameters" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["compare", "flow", "kernels"])
def test_weights_beyond_memory_are_refused_before_they_are_drawn(name, undrawn, capsys):
    assert main([name, *undrawn]) == 2
    # 16 bytes for each of the 7904 * (7904 + 4) weights are just below the 1 GB.
    assert capsys.readouterr().err == (
        "nthsim: `--width` must be at most 7903, but is 60000: its weights need 57.6 GB and "
        "1.0 GB are available.\n"
    )


def test_kernels_compute_nothing_when_one_does_not_fit(tmp_path, capsys, calls):
    words = ["kernels", *SMALL, "--n-train", "16", "--memory", "400MB", "--out", str(tmp_path)]
    assert calls([*words, "--orders", "2", "3", "9"]) == calls([*words, "--orders", "9"])
    assert main([*words, "--orders", "2", "3", "9"]) == 2
    line = "nthsim: `--orders` must be at most 6 for n = 16 here, but is 9: "
    assert capsys.readouterr().err.startswith(line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["fcn", "resnet"])
def test_constants_of_a_network_can_be_set(model):
    words = ["--c-sigma", "auto", "--weight-scale", "2", "--readout-scale", "0"]
    more = ["--c-res", "0.5"] if model == "resnet" else []
    command = parsed(["flow", *SMALL, "--model", model, *words, *more])
    assert isinstance(command, settings.FlowSettings)
    net = drawn_model(command, nth.sphere(3, 2, dim=3))
    assert net.c_sigma == normalisation("tanh")
    assert (net.weight_scale, net.readout_scale) == (2.0, 0.0)
    assert getattr(net, "c_res", 0.5) == 0.5


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_constants_left_out_are_those_of_python(network):
    command = parsed(["flow", *SMALL, "--model", network.__name__.lower()])
    assert isinstance(command, settings.FlowSettings)
    net = drawn_model(command, nth.sphere(3, 2, dim=3))
    assert eqx.tree_equal(net, network(3, 4, 1, key=jax.random.key(0)))


def test_comparison_without_certificate(tmp_path):
    assert main([*COMPARE, "--no-certify", "--out", str(tmp_path)]) == 0
    assert nth.Comparison.load(tmp_path / "orders.nc").certificate is None


def test_closed_pipe_is_no_error_to_talk_about():
    code = "import sys; from nthsim.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "plan", *TINY]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == b""
    run.stderr.close()
    assert run.wait() == 1
