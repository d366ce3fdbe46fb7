import pytest

from monai_chd.wording import join_faults, p_words, some_of, text_table


@pytest.mark.parametrize(
    ("names", "most", "text"),
    [
        ([], 2, ""),
        (["a"], 2, "a"),
        (["a", "b"], 2, "a, b"),
        (["a", "b", "c", "d"], 2, "a, b and 2 more"),
        ([1, 2], 1, "1 and 1 more"),
    ],
)
def test_names_beyond_the_most_are_counted(names, most, text):
    assert some_of(names, most) == text


def test_faults_are_parted_by_semicolons_since_they_hold_commas():
    assert join_faults(["a, b", "c"]) == "a, b; c"
    assert join_faults(["a, b", "c", "d"], 2) == "a, b; c; and 1 more"


@pytest.mark.parametrize(
    ("p", "text"), [(0.04217, "p = 0.042"), (0.001, "p = 0.001"), (0.00099, "p < 0.001"), (1.0, "p = 1.000")]
)
def test_a_p_value_is_written_with_three_digits_or_as_smaller(p, text):
    assert p_words(p) == text


def test_columns_have_one_width_and_those_of_numbers_stand_at_the_right_with_their_heading():
    rows = [["class", "n", "cases", "share"], ["Normal", 7, 100, "0.5 [0.1, 0.9]"], ["Cyanotic", "+12", -1.5, 3]]
    assert text_table(rows).splitlines() == [
        "class       n  cases  share",
        "Normal      7    100  0.5 [0.1, 0.9]",
        "Cyanotic  +12   -1.5  3",
    ]


def test_the_first_column_names_the_rows_and_stands_at_the_left_even_of_numbers():
    assert text_table([["offset", "n"], [-1024, 3], [0, 12]]).splitlines() == ["offset   n", "-1024    3", "0       12"]


def test_rows_of_another_length_are_a_fault():
    with pytest.raises(ValueError, match="zip"):
        text_table([["a", "b"], ["c"]])
