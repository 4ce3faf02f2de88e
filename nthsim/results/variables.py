"""The axes of all variables of results, and what they are called for people."""

from collections.abc import Mapping

#: Groups whose variables are a network's parameters.
PARAMETERS = ("parameters", "trained_parameters")

#: What a file of each kind is about.
TITLES: Mapping[str, str] = {
    "Trajectory": "A network's outputs, losses and kernels along one dynamics",
    "Comparison": "Exact gradient flow of a network, and curves beside it",
    "Scaling": "Kernels, drift and errors of networks, over their width or depth",
    "Cell": "Networks of one family and one size, a part of a study over sizes",
}

#: The first axes of what a study over sizes measures.
STUDY = ("family", "size", "seed")

#: Fields of a result that are the coordinates of an axis, by which a variable must be called.
FIELDS: Mapping[str, str] = {
    "ts": "t",
    "save_time": "save_time",
    "record_ts": "record_time",
    "sizes": "size",
    "seeds": "seed",
}

#: Axes by what their coordinates are for people; all others count from 0.
AXES: Mapping[str, str] = {
    "t": "gradient-flow time",
    "save_time": "gradient-flow times that were asked for",
    "record_time": "gradient-flow times at which more was recorded",
    "family": "family of networks",
    "size": "width or depth",
    "seed": "seed of the network",
    "order": "order p of the truncation",
    "rank": "r of the kernel K^(r)",
    "power": "power of the hierarchy's formal parameter",
    "path": "path of a noisy dynamics",
    "bound": "which end of a fit",
    "sample": "training point",
    "test_sample": "test point",
    "other_sample": "training point in the last slot of a kernel",
    "input": "input",
    "output": "output",
    "other_output": "output in the last slot of a kernel",
    "entry": "output of a training point, one point after the other",
    "other_entry": "likewise, in the last slot of a kernel",
}

#: Units where they are not "1": time counts in the one that the factor 1/n in the loss sets.
UNITS: Mapping[str, str] = {"seconds": "s"}

#: The axes of each variable, and its name for people. A scalar output has no axis "output".
VARIABLES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "x": (("sample", "input"), "training inputs"),
    "y": (("sample", "output"), "training targets"),
    "x_test": (("test_sample", "input"), "test inputs"),
    "y_test": (("test_sample", "output"), "test targets"),
    "f": (("t", "sample", "output"), "network outputs on training inputs"),
    "f_test": (("t", "test_sample", "output"), "network outputs on test inputs"),
    "path_f": (("t", "path", "sample", "output"), "f of each path of a noisy dynamics"),
    "path_f_test": (("t", "path", "test_sample", "output"), "f_test of each path"),
    "path_loss": (("t", "path"), "loss of each path"),
    "path_test_loss": (("t", "path"), "test_loss of each path"),
    "loss": (("t",), "mean loss over training points"),
    "test_loss": (("t",), "mean loss over test points"),
    "accuracy": (("t",), "part of the training points whose class the outputs tell"),
    "test_accuracy": (("t",), "part of the test points whose class the outputs tell"),
    "solver_error": (("t",), "what solving ten times as tightly changes in f, rms"),
    "contributions": (
        ("t", "power", "sample", "output"),
        "coefficients of f in the hierarchy's formal parameter, which sum to f",
    ),
    "contributions_test": (
        ("t", "power", "test_sample", "output"),
        "coefficients of f_test in the hierarchy's formal parameter, which sum to f_test",
    ),
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
    "f_bound": (("t",), "a-priori bound on the error of f at order 2, rms over training points"),
    "kernel_bound": (("t",), "a-priori bound on the movement of each entry of K^(2)"),
    "drift_bound": (("t",), "the same, relative in Frobenius norm"),
    "errors": (("order", "t"), "root mean square error of f at small times"),
    "slopes": (("order",), "fitted slope of log error against log time"),
    "windows": (("order", "bound"), "first and last time of each fit"),
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
    "drift": ((*STUDY, "t"), "relative movement of K^(2) in exact gradient flow"),
    "error_f": ((*STUDY, "order", "t"), "root mean square error of f, training points"),
    "error_f_test": ((*STUDY, "order", "t"), "root mean square error of f, test points"),
    "error_kernel": ((*STUDY, "order", "t"), "error of K^(2), relative to that at time 0"),
    "blown_up": ((*STUDY, "order"), "whether the truncation blew up"),
    "seconds": (("family", "size"), "wall time of all seeds"),
}

#: Of a cell, which is of one family and one size.
CELL: Mapping[str, tuple[tuple[str, ...], str]] = {
    name: (axes[2:], text) for name, (axes, text) in VARIABLES.items() if axes[:3] == STUDY
}

#: Groups whose variables have labels of their own. What has none is called after itself.
LABELS = {"cell": CELL, **{name: {} for name in PARAMETERS}}

#: The columns of errors in a table over time, by the fields of `nthsim.Errors`.
ERRORS = {
    "train_rms": "error_f",
    "train_max": "error_f_max",
    "test_rms": "error_f_test",
    "test_max": "error_f_test_max",
    "loss": "error_loss",
    "test_loss": "error_test_loss",
    "kernel": "error_kernel",
    "kernel_test": "error_kernel_test",
}
