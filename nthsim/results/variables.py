"""The axes of all variables in files, and what they are called for people."""

from collections.abc import Mapping

#: Groups whose variables are a network's parameters.
PARAMETERS = ("parameters", "trained_parameters")

#: The first axes of what a study over sizes measures.
STUDY = ("family", "size", "seed")

#: The axes of each variable, and its name for people. A scalar output has no axis "output"; all
#: numbers are dimensionless, time in the unit that the factor 1/n in the loss sets.
VARIABLES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "x": (("sample", "input"), "training inputs"),
    "y": (("sample", "output"), "training targets"),
    "x_test": (("test_sample", "input"), "test inputs"),
    "y_test": (("test_sample", "output"), "test targets"),
    "save_time": (("save_time",), "gradient-flow times that were asked for"),
    "time": (("time",), "gradient-flow time"),
    "f": (("time", "sample", "output"), "network outputs on training inputs"),
    "f_test": (("time", "test_sample", "output"), "network outputs on test inputs"),
    "loss": (("time",), "mean loss over training points"),
    "test_loss": (("time",), "mean loss over test points"),
    "accuracy": (("time",), "part of the training points whose class the outputs tell"),
    "test_accuracy": (("time",), "part of the test points whose class the outputs tell"),
    "solver_error": (("time",), "what solving ten times as tightly changes in f, rms"),
    "contributions": (
        ("time", "power", "sample", "output"),
        "coefficients of f in the hierarchy's formal parameter, which sum to f",
    ),
    "contributions_test": (
        ("time", "power", "test_sample", "output"),
        "coefficients of f_test in the hierarchy's formal parameter, which sum to f_test",
    ),
    "record_time": (("record_time",), "gradient-flow times at which more was recorded"),
    "kernel": (
        ("record_time", "sample", "output", "other_sample", "other_output"),
        "tangent kernel K^(2) among training points",
    ),
    "initial_kernel": (
        ("sample", "output", "other_sample", "other_output"),
        "tangent kernel K^(2) among training points at time 0",
    ),
    "kernel_test": (
        ("record_time", "test_sample", "output", "other_sample", "other_output"),
        "tangent kernel K^(2) of test against training points",
    ),
    "f_bound": (("time",), "a-priori bound on the error of f at order 2, rms over training points"),
    "kernel_bound": (("time",), "a-priori bound on the movement of each entry of K^(2)"),
    "drift_bound": (("time",), "the same, relative in Frobenius norm"),
    "errors": (("order", "time"), "root mean square error of f at small times"),
    "slopes": (("order",), "fitted slope of log error against log time"),
    "windows": (("order", "bound"), "first and last time of each fit"),
    "sizes": (("size",), "widths or depths"),
    "seeds": (("seed",), "seeds of the networks"),
    "initial_f": ((*STUDY, "entry"), "network outputs on training inputs at time 0"),
    "initial_kernels": (
        (*STUDY, "entry", "other_entry"),
        "tangent kernels K^(2) among training points at time 0",
    ),
    "kernel_rms": ((*STUDY, "rank"), "root mean square of K^(2), K^(3), ... at time 0"),
    "kernel_max": ((*STUDY, "rank"), "largest absolute entry of K^(2), K^(3), ... at time 0"),
    "kernel_mean": (
        (*STUDY, "rank"),
        "mean entry of K^(r) at time 0 for even r, of K^(r) times f in its last slot for odd r",
    ),
    "drift": ((*STUDY, "save_time"), "relative movement of K^(2) in exact gradient flow"),
    "error_f": ((*STUDY, "order", "save_time"), "root mean square error of f, training points"),
    "error_f_test": ((*STUDY, "order", "save_time"), "root mean square error of f, test points"),
    "error_kernel": ((*STUDY, "order", "save_time"), "error of K^(2), relative to that at time 0"),
    "blown_up": ((*STUDY, "order"), "whether the truncation blew up"),
    "seconds": (("family", "size"), "wall time of all seeds"),
}

#: Of a cell, which is of one family and one size.
CELL: Mapping[str, tuple[tuple[str, ...], str]] = {
    name: (axes[2:], text) for name, (axes, text) in VARIABLES.items() if axes[:3] == STUDY
}

#: Groups whose variables have labels of their own. What has none is called after itself.
LABELS = {"cell": CELL, **{name: {} for name in PARAMETERS}}
