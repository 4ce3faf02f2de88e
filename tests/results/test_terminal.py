"""Tables are aligned, and a number that is missing is a dash."""

from decimal import Decimal

import pytest

from nthsim.results.terminal import fixed, scientific, short, table


def test_first_column_is_aligned_left_and_all_others_right():
    text = table([["", "steps", "s"], ["exact flow", "7", "0.10"], ["order 2", "12345", "11.00"]])
    assert text.splitlines() == [
        "            steps      s",
        "exact flow      7   0.10",
        "order 2     12345  11.00",
    ]


def test_no_line_ends_in_spaces():
    assert table([["a", "b"], ["longer", ""]]).splitlines() == ["a       b", "longer"]


def test_table_without_rows_is_empty():
    assert table([]) == ""


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"^`rows` must have 2 cells each, but one has 1\.$"):
        table([["a", "b"], ["c"]])


@pytest.mark.parametrize("value", [None, float("nan")])
def test_missing_number_is_a_dash(value):
    assert scientific(value) == "-"
    assert fixed(value, 3) == "-"


def test_numbers_have_the_digits_asked_for():
    assert scientific(0.01234) == "1.2e-02"
    assert scientific(0.01234, 3) == "1.234e-02"
    assert scientific(float("inf")) == "inf"
    assert fixed(1.9996, 3) == "2.000"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (1, "1"),
        (999, "999"),
        (1000, "1.00k"),
        (8256, "8.26k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (950_476_800, "950M"),
        (10**15, "1.00P"),
        (10**18, "1.00e+18"),
        (6 * 10**400, "6.00e+400"),
        (Decimal("0.0012821"), "0.00128"),
        (Decimal(2) / 3 * 10**5, "66.7k"),
    ],
)
def test_number_of_any_size_has_three_digits(number, text):
    assert short(number) == text
