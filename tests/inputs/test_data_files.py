"""A user's file becomes the data set that it holds, or one sentence says why not."""

import io
import pickle
import re
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from nthsim.inputs.data_files import load_data
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.table import CountingColumnWarning

RAW = {"center": False, "normalize": False}


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"x": (7, 3), "y": (7,), "x_test": (5, 3), "y_test": (5,)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def _npz(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, allow_pickle=True, **arrays)
    return path


def _csv(folder: Path, text: str | bytes) -> Path:
    path = folder / "data.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _refused(
    path: Path, sentence: str, n_train: int | None = None, n_test: int | None = None
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        load_data(path, n_train=n_train, n_test=n_test)


def test_npz_comes_back_as_it_was_saved(tmp_path, arrays):
    data = load_data(_npz(tmp_path, **arrays, other=np.array("left alone")), **RAW)
    assert eqx.tree_equal(data, Dataset(**arrays))


def test_path_may_be_a_string_and_its_suffix_in_capitals(tmp_path, arrays):
    path = _npz(tmp_path, **arrays).rename(tmp_path / "DATA.NPZ")
    assert load_data(str(path)).n == 7


def test_npz_may_hold_images_and_vector_targets(tmp_path):
    x, y = np.arange(24.0).reshape(3, 2, 4), np.eye(3)
    data = load_data(_npz(tmp_path, x=x, y=y), **RAW)
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(data.y, y)


def test_inputs_are_by_default_normalised_by_the_training_points_alone(tmp_path, arrays):
    data = load_data(_npz(tmp_path, **arrays), n_train=3, n_test=2)
    cut = Dataset(arrays["x"][:3], arrays["y"][:3], arrays["x_test"][:2], arrays["y_test"][:2])
    assert eqx.tree_equal(data, cut.normalised())


def test_test_inputs_of_an_npz_may_come_without_targets(tmp_path, arrays):
    del arrays["y_test"]
    data = load_data(_npz(tmp_path, **arrays), n_test=2, **RAW)
    np.testing.assert_array_equal(data.x_test, arrays["x_test"][:2])
    assert data.y_test is None


def test_no_test_points_are_kept_when_none_are_asked_for(tmp_path, arrays):
    assert load_data(_npz(tmp_path, **arrays), n_test=0).x_test is None


@pytest.mark.parametrize(
    ("numbers", "train", "test"),
    [
        ({}, (0, 7), (7, 7)),
        ({"n_train": 7}, (0, 7), (7, 7)),
        ({"n_train": 3}, (0, 3), (3, 3)),
        ({"n_test": 2}, (0, 5), (5, 7)),
        ({"n_train": 3, "n_test": 2}, (0, 3), (3, 5)),
        ({"n_train": 4, "n_test": 3}, (0, 4), (4, 7)),
    ],
)
def test_test_points_follow_the_training_points_in_one_table(numbers, train, test, tmp_path):
    x, y = np.arange(14.0).reshape(7, 2), np.arange(7.0)
    text = "".join(f"{a},{b},{c}\n" for (a, b), c in zip(x, y, strict=True))
    for path in (_npz(tmp_path, x=x, y=y), _csv(tmp_path, text)):
        data = load_data(path, **numbers, **RAW)
        np.testing.assert_array_equal(data.x, x[slice(*train)])
        np.testing.assert_array_equal(data.y, y[slice(*train)])
        assert data.n_test == test[1] - test[0]
        if data.x_test is not None:
            np.testing.assert_array_equal(data.x_test, x[slice(*test)])
            np.testing.assert_array_equal(data.y_test, y[slice(*test)])


@pytest.mark.parametrize(
    ("text", "x", "y"),
    [
        ("1,2,3\n4,5,6\n", [[1, 2], [4, 5]], [3, 6]),
        ("a,y,b\n1,2,3\n4,5,6", [[1, 3], [4, 6]], [2, 5]),
        ("y0, y1 ,a\n1,2,3\n4,5,6\n", [[3], [6]], [[1, 2], [4, 5]]),
        ("\ufeffy,a\r\n1,2\r\n\r\n3, 4e0\r\n\r\n", [[2], [4]], [1, 3]),
        ('"a, long",y\n"1",2\n3,4\n', [[1], [3]], [2, 4]),
    ],
)
def test_csv_columns_are_inputs_and_targets_by_name_or_place(text, x, y, tmp_path):
    data = load_data(_csv(tmp_path, text), **RAW)
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(data.y, y)


def test_large_offsets_survive_float32(tmp_path):
    seconds = 1.7e9 + np.arange(5.0)
    path = _npz(tmp_path, x=seconds[:, None], y=np.arange(5.0))
    with jax.enable_x64(False):
        data = load_data(path, normalize=False)
        assert data.x.dtype == np.float32
        np.testing.assert_array_equal(data.x[:, 0], [-2, -1, 0, 1, 2])


@pytest.mark.parametrize("name", ["data.txt", "data", "data.npz.gz"])
def test_another_suffix_is_refused(name, tmp_path):
    path = tmp_path / name
    _refused(path, f"`path` must end in .npz or .csv, but is {path}.")


@pytest.mark.parametrize("name", ["data.npz", "data.csv"])
def test_a_missing_file_and_a_folder_are_refused(name, tmp_path):
    path = tmp_path / name
    start = f"`path` must be a readable file, but {path} is not: "
    _refused(path, f"{start}No such file or directory.")
    path.mkdir()
    _refused(path, f"{start}Is a directory.")


@pytest.mark.parametrize("kept", [0, 10, 300, -1])
def test_a_truncated_npz_is_refused(kept, tmp_path, arrays):
    path = _npz(tmp_path, **arrays)
    path.write_bytes(path.read_bytes()[:kept])
    _refused(
        path, f"`path` must be an .npz archive, but {path} is none, or is corrupt or truncated."
    )


def test_an_npz_with_flipped_bits_is_refused(tmp_path, arrays):
    path = _npz(tmp_path, **arrays)
    content = bytearray(path.read_bytes())
    content[200] ^= 255  # among the numbers of x, so that only the checksum can tell
    path.write_bytes(content)
    _refused(path, f"`path` must be an intact .npz archive, but {path} is corrupt or truncated.")


def test_an_npz_member_with_a_broken_header_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x04\x00{{((")
        archive.writestr("y.npy", b"")
    _refused(path, f"`path` must be an intact .npz archive, but {path} is corrupt or truncated.")


def test_a_single_array_named_npz_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    path.write_bytes(buffer.getvalue())
    _refused(
        path, f"`path` must be an .npz archive, but {path} is none, or is corrupt or truncated."
    )


class _Trap:
    """Runs code when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return (_Trap.spring, ())

    @staticmethod
    def spring() -> None:
        _Trap.sprung = True


def test_a_pickled_array_is_refused_and_never_run(tmp_path):
    path = _npz(tmp_path, x=np.array([[_Trap()], [_Trap()]], dtype=object), y=np.arange(2.0))
    _refused(
        path,
        f"`path` must hold plain arrays of numbers, but one in {path} is pickled, "
        "and a pickle is never loaded.",
    )
    path.write_bytes(pickle.dumps(_Trap()))
    _refused(
        path, f"`path` must be an .npz archive, but {path} is none, or is corrupt or truncated."
    )
    assert not _Trap.sprung


@pytest.mark.parametrize(
    ("names", "listed"), [(("x",), "'x'"), (("y", "x_test"), "'y', 'x_test'"), ((), "nothing")]
)
def test_missing_arrays_are_named(names, listed, tmp_path, arrays):
    path = _npz(tmp_path, **{name: arrays[name] for name in names})
    _refused(path, f"`path` must hold the arrays x and y, but {path} holds {listed}.")


def test_arrays_that_do_not_fit_are_refused_before_any_cut(tmp_path, arrays):
    path = _npz(tmp_path, x=arrays["x"], y=arrays["y"][:6])
    sentence = "`y` must have shape (7,) or (7, k) like `x`, but has shape (6,)."
    _refused(path, sentence, n_train=3)


def test_nan_in_an_npz_is_named_where_it_stands(tmp_path, arrays):
    arrays["x"][4, 1] = np.nan
    _refused(_npz(tmp_path, **arrays), "`x` must be finite, but x[4, 1] is nan in float64.")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a,y\n1,2\n\n3,abc\n",
            "finite numbers only, but column 2 in line 4 of {} is 'abc'; with `labels` it is the "
            "name of a class.",
        ),
        ("1,2\n,4\n", "finite numbers only, but column 1 in line 2 of {} is ''."),
        ("1,2\n3,nan\n", "finite numbers only, but column 2 in line 2 of {} is 'nan'."),
        ("1,inf\n3,4\n", "finite numbers only, but column 2 in line 1 of {} is 'inf'."),
        (
            "1,2,3\n4,5\n",
            "as many cells in every line as in the first, 3, but line 2 of {} holds 2.",
        ),
        (
            "a,y\n1,2,\n",
            "as many cells in every line as in the first, 2, but line 2 of {} holds 3.",
        ),
        ("a,y\n1_000,2\n", "finite numbers only, but column 1 in line 2 of {} is '1_000'."),
        ("a,b,y\nm,s,1\n1,2,3\n", "finite numbers only, but column 1 in line 2 of {} is 'm'."),
        ("", "at least one point, but {} is empty."),
        (" \n\n", "at least one point, but {} is empty."),
        ("a,y\n", "at least one point, but {} holds only a header."),
        (
            "a,b\n1,2\n",
            "input columns and, in a header, target columns named y or y1, y2, ..., "
            "but the first line of {} is ['a', 'b'].",
        ),
        (
            "y1,y2\n1,2\n",
            "input columns and, in a header, target columns named y or y1, y2, ..., "
            "but the first line of {} is ['y1', 'y2'].",
        ),
        (
            "1\n2\n",
            "input columns and, in a header, target columns named y or y1, y2, ..., "
            "but the first line of {} is ['1'].",
        ),
    ],
)
def test_a_faulty_csv_is_refused_with_the_line(text, problem, tmp_path):
    path = _csv(tmp_path, text)
    _refused(path, f"`path` must hold {problem.format(path)}")


def test_a_csv_that_is_no_text_is_refused(tmp_path):
    path = _csv(tmp_path, b"1,2\n\xff\xfe,3\n")
    sentence = re.escape(f"`path` must be a .csv text file, but {path} is not: ")
    with pytest.raises(ValueError, match=f"^{sentence}.*invalid start byte.$"):
        load_data(path)


@pytest.mark.parametrize(
    ("y", "shown"), [([2.0] * 3, "2.0"), ([[1.0, 0.0]] * 3, "[1.0, 0.0]"), ([1, 1, 1, 2], "1")]
)
def test_equal_training_targets_are_refused(y, shown, tmp_path):
    path = _npz(tmp_path, x=np.eye(len(y), 2), y=np.array(y))
    sentence = f"`y` must hold at least two different targets, but all 3 are {shown}."
    _refused(path, sentence, n_train=3)


def test_one_training_point_may_have_any_target(tmp_path, arrays):
    assert load_data(_npz(tmp_path, **arrays), n_train=1, center=False).n == 1


@pytest.mark.parametrize(
    ("names", "numbers", "sentence"),
    [
        (
            ("x", "y"),
            {"n_train": 8},
            "`n_train` must be at most 7, the number of points in the file, but is 8.",
        ),
        (
            ("x", "y"),
            {"n_train": 6, "n_test": 2},
            "`n_train` + `n_test` must be at most 7, the number of points in the file, "
            "but is 6 + 2.",
        ),
        (
            ("x", "y"),
            {"n_test": 7},
            "`n_test` must be at most 6, one less than the 7 points in the file, but is 7.",
        ),
        (
            ("x", "y", "x_test"),
            {"n_test": 6},
            "`n_test` must be at most 5, the number of test points in the file, but is 6.",
        ),
        (
            ("x", "y", "x_test"),
            {"n_train": 8, "n_test": 2},
            "`n_train` must be at most 7, the number of points in the file, but is 8.",
        ),
        (
            ("x", "y"),
            {"n_train": 20, "n_test": 30},
            "`n_train` + `n_test` must be at most 7, the number of points in the file, "
            "but is 20 + 30.",
        ),
        (
            ("x", "y", "x_test"),
            {"n_train": 8, "n_test": 6},
            "`n_train` and `n_test` must be at most 7 and 5, the numbers of points in the file, "
            "but are 8 and 6.",
        ),
        (
            ("x", "y"),
            {"n_train": 0, "n_test": -1},
            "`n_train` and `n_test` must be integers of at least 1 and 0, but are 0 and -1.",
        ),
        (("x", "y"), {"n_train": 0}, "`n_train` must be an integer of at least 1, but is 0."),
        (("x", "y"), {"n_test": -1}, "`n_test` must be an integer of at least 0, but is -1."),
    ],
)
def test_more_points_than_there_are_is_refused(names, numbers, sentence, tmp_path, arrays):
    _refused(_npz(tmp_path, **{name: arrays[name] for name in names}), sentence, **numbers)


def test_column_called_year_is_an_input(tmp_path):
    path = tmp_path / "years.csv"
    path.write_text("year,Y_1,b,y2\n2001,1,3,-1\n2002,2,5,1\n2004,4,1,1\n")
    data = load_data(path, center=False, normalize=False)
    np.testing.assert_array_equal(data.x, [[2001, 3], [2002, 5], [2004, 1]])
    np.testing.assert_array_equal(data.y, [[1, -1], [2, 1], [4, 1]])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1;2;3\n4;5;6\n", "semicolons"),
        ("a;y\n1,5;2\n3;4,5\n", "semicolons"),
        ("a\ty\n1\t2\n", "tabs"),
        ("1 2  3\n4 5  6\n", "spaces"),
    ],
)
def test_columns_separated_by_anything_but_commas_are_refused(text, name, tmp_path):
    path = _csv(tmp_path, text)
    held = f"columns separated by commas, but those of {path} are separated by {name}."
    _refused(path, f"`path` must hold {held}")


def test_names_of_columns_may_hold_semicolons_tabs_and_spaces(tmp_path):
    data = load_data(_csv(tmp_path, "height; cm\tor so,y\n 1\t,2\n3 , 4\n"), **RAW)
    np.testing.assert_array_equal(data.x, [[1], [3]])
    np.testing.assert_array_equal(data.y, [2, 4])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (",a,y\n0,5,1\n1,6,2\n", "name every column in its header, but column 1 of {} has no name"),
        ("Unnamed: 0,a,y\n0,5,1\n", "name every column in its header, but column 1 of {} has no"),
        (
            '"","a","y"\n"1",5,1\n',
            "name every column in its header, but column 1 of {} has no name",
        ),
        ("a,y,\n5,1,\n", "name every column in its header, but column 3 of {} has no name"),
        ("a,a,y\n5,6,1\n", "give every column a name of its own, but two of {} are called 'a'."),
        (
            "0,1,2\n5,6,1\n7,6,2\n",
            "begin with names or with a point, but the first line of {}, 0, 1,",
        ),
    ],
)
def test_header_that_names_no_columns_is_refused(text, problem, tmp_path):
    path = _csv(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(f"`path` must {problem.format(path)}")):
        load_data(path)


def test_first_input_that_counts_the_lines_is_told(tmp_path):
    path = _csv(tmp_path, "1,0.5,3\n2,0.1,4\n3,0.7,5\n")
    with pytest.warns(CountingColumnWarning, match="first input column of .* counts its lines"):
        data = load_data(path, **RAW)
    np.testing.assert_array_equal(data.x[:, 0], [1, 2, 3])


@pytest.mark.parametrize(
    "text",
    ["a,y,b\n1,u,2\n3,v,4\n5,u,7\n", "1,2,u\n3,4,v\n5,7,u\n", '1,2,"u"\n3,4,"v"\n5,7,"u"\n'],
)
def test_labels_of_a_table_become_targets_with_their_names(text, tmp_path):
    data = load_data(_csv(tmp_path, text), n_train=2, n_test=1, labels=True, **RAW)
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(data.y, [-1, 1])
    np.testing.assert_array_equal(data.y_test, [-1])
    assert data.classes == ("u", "v")


def test_labels_may_be_integers_and_are_classes_of_the_whole_file(tmp_path):
    data = load_data(
        _csv(tmp_path, "0.5,10\n0.1,2\n0.7,9\n"), n_train=2, n_test=1, labels=True, **RAW
    )
    assert data.classes == (2, 9, 10)
    assert data.y_test is not None
    np.testing.assert_allclose(data.y_test, [[-1 / 3, 2 / 3, -1 / 3]], atol=1e-15)
    path = _npz(
        tmp_path,
        x=np.eye(3),
        y=np.array(["u", "v", "u"]),
        x_test=np.eye(3),
        y_test=np.array(["w", "u", "u"]),
    )
    assert load_data(path, labels=True, **RAW).classes == ("u", "v", "w")


def test_point_that_looks_like_numbers_of_columns_is_one_where_its_label_is(tmp_path):
    data = load_data(_csv(tmp_path, "0,1,u\n1,0,v\n1,1,u\n"), labels=True, **RAW)
    assert (data.n, data.classes) == (3, ("u", "v"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,y\n1,\n2,u\n", "must hold a label in every line, but column 2 in line 2"),
        ("a,y\n1,u\n2,NA\n", "must hold a label in every line, but column 2 in line 3 of"),
        ("a,y\n1,u\n2,None\n", "must hold a label in every line, but column 2 in line 3 of"),
        ("a,y\n1,?\n2,u\n", "must hold a label in every line, but column 2 in line 2 of"),
        ("0,1,label\n1,2,u\n3,4,v\n", ", 0, 1, label, ..., numbers the columns"),
        ('a,y\n1,"u\n2,v\n', "must be a .csv text file, but"),
        ("y1,a,y2\n1,2,3\n", "`labels` must be of one target column, but"),
        ("y,a,b\nu,1,2\nv,3,w\n", "finite numbers only, but column 3 in line 3 of"),
        ("1,2,y\n3,4,n\n5,6,y\n", "which ends in 'y', may be a header or a point."),
        (
            "0.5,0.1\n0.7,0.3\n",
            "must be all integers, all words or all truth values, but labels[0]",
        ),
    ],
)
def test_labels_that_are_none_are_refused(text, sentence, tmp_path):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_data(_csv(tmp_path, text), labels=True)
