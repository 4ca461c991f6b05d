"""Equal numbers are one class, what looks alike is named, and a missing label is one on request."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samcls.data.columns import TaskColumn
from samcls.data.labels import canonical, class_order, positive_last, read_task, unused_missing

TASK = TaskColumn("y")


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        (["0", "0.0", "00", "-0", "0e0", ".0", "+0."], "0"),
        (["1", "1.0", "01", "1e0", "10e-1", "+1.000"], "1"),
        (["-2", "-2.0", "-02"], "-2"),
        (["0.5", ".5", "5e-1", "0.50"], "0.5"),
        (["1e3", "1000.0"], "1000"),
        (["1e400", "10e399"], "1e+400"),
    ],
)
def test_equal_numbers_are_one_class(spellings: list[str], expected: str) -> None:
    """However a number is written, its class has one name: the integer's if it is one."""
    assert {canonical(one) for one in spellings} == {expected}
    found = read_task(TASK, spellings)
    assert found.classes == (expected,)
    assert set(found.texts) == {expected}


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1_000", "0x1", "1,0", "\uff11", "1 2", "v1.0", "1.2.3", "", "-", "."]
)
def test_what_is_no_plain_number_keeps_its_spelling(text: str) -> None:
    """Only digits, a sign, a point and an exponent make a number."""
    assert canonical(text) == text


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_the_spelling_of_a_number_is_its_own_spelling(number: object) -> None:
    """Spelling twice changes nothing, and a number long or short is never rounded."""
    once = canonical(str(number))
    assert canonical(once) == once
    assert canonical("0.1234567890123456789012345678901234567891") != canonical(
        "0.1234567890123456789012345678901234567892"
    )


def test_merged_spellings_are_named_with_counts() -> None:
    """A warning says which spellings were taken as one, and how often each occurs."""
    found = read_task(TASK, ["0"] * 8 + ["0.0"] * 7 + ["1"])
    assert found.remarks == (
        (
            "task 'y': '0' (8 images) and '0.0' (7 images) are equal numbers and are taken as one "
            "class, '0'"
        ),
    )
    assert read_task(TASK, ["0.0", "1.0"]).remarks == ()


@pytest.mark.parametrize(
    "names",
    [
        ("Yes", "yes"),
        ("stage 1", "stage1"),
        ("grade  a", "grade a"),
        ("non-melanoma", "non_melanoma"),
        ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
        ("\uff11", "1"),
        ("1,0", "1"),
        ("stra\u00dfe", "STRASSE"),
        ("a\u200bb", "ab"),
    ],
)
def test_classes_that_look_alike_are_named_and_stay_two(names: tuple[str, str]) -> None:
    """Case, white space, hyphens and Unicode forms: both are named with counts, and none is merged."""
    found = read_task(TASK, [names[0], names[0], names[1], "other"])
    assert len(found.classes) == 3
    (remark,) = found.remarks
    assert "look alike and are 2 classes" in remark
    for name, images in zip(names, ("2 images", "1 image"), strict=True):
        assert f"{name!r} ({images})" in remark


@pytest.mark.parametrize("names", [("benign", "malignant"), ("-1", "1"), ("A+", "A-"), ("1", "11")])
def test_classes_that_differ_are_not_doubted(names: tuple[str, str]) -> None:
    """Nothing is said of a plain pair of classes."""
    assert read_task(TASK, list(names)).remarks == ()


@pytest.mark.parametrize(
    "word",
    [
        "nan",
        "NaN",
        "NA",
        "N/A",
        "none",
        "null",
        "-",
        "?",
        "<NA>",
        "n.a.",
        "Missing",
        "--",
        "\u200b",
    ],
)
def test_a_word_for_missing_is_a_class_until_it_is_said(word: str) -> None:
    """The warning gives the option that makes the label missing; with it, there is no such class."""
    cells = ["neg", "pos", word, word, ""]
    found = read_task(TASK, cells)
    assert word in found.classes
    (remark,) = found.remarks
    assert f"{word!r} (2 images) is taken for a class" in remark
    assert "--missing " in remark
    assert "(1 empty cells are missing labels already)" in remark
    told = read_task(TASK, cells, missing=[word])
    assert (told.classes, told.texts, told.remarks) == (
        ("neg", "pos"),
        ("neg", "pos", "", "", ""),
        (),
    )


def test_all_words_for_missing_stand_in_one_sentence() -> None:
    """One option names them all; a number that means missing is one in any spelling."""
    (remark,) = read_task(TASK, ["a", "nan", "NA", "?"]).remarks
    assert remark.endswith("give --missing 'nan,NA,?'")
    assert read_task(TASK, ["1", "9", "9.0"], missing=["9"]).texts == ("1", "", "")


def test_a_word_that_occurs_nowhere_is_said_to() -> None:
    """A spelling that misses its mark is answered with what may be meant."""
    assert unused_missing(["NaN", "nan"], ["nan", "pos"]) == [
        "no label is spelled 'NaN', which --missing names; did you mean 'nan'?"
    ]


def test_numbers_stand_in_numeric_order() -> None:
    """Negatives and fractions too; one word among them and all are texts."""
    assert class_order({"10", "9", "-1.5", "0.25"}) == ("-1.5", "0.25", "9", "10")
    assert class_order({"10", "9", "x"}) == ("10", "9", "x")


def test_the_positive_class_is_the_last_of_two() -> None:
    """A set without a case still knows what a case is called; more classes have no positive one."""
    assert positive_last("y", ["a", "b"], "a") == (("b", "a"), "")
    assert positive_last("y", ["a"], "b") == (("a", "b"), "")
    assert positive_last("y", [], "b") == ((), "")
    assert "did you mean 'yes'?" in positive_last("y", ["no", "yes"], "Yes")[1]
    assert "has 3 classes (a, b, c)" in positive_last("y", ["a", "b", "c"], "a")[1]


def test_known_classes_keep_their_order_and_spelling() -> None:
    """What a store holds already is matched by value, not by spelling."""
    found = read_task(TASK, ["1", "0"], known=("1.0", "0.0", "2.0"))
    assert found.classes == ("1.0", "0.0", "2.0")
    assert found.texts == ("1.0", "0.0")
