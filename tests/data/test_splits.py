import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_pruning.data.splits import Split, carve, read_names

NAMES = st.lists(st.text(min_size=1), min_size=2, unique=True)
FRACTION = st.floats(0.001, 0.999)


@given(NAMES, FRACTION)
def test_carving_shares_out_all_names(names, fraction):
    rest, carved = carve(names, fraction)
    assert sorted((*rest, *carved)) == sorted(names)
    assert rest
    assert carved
    assert abs(len(carved) - fraction * len(names)) <= 1


@given(NAMES, FRACTION, st.randoms())
def test_carving_does_not_depend_on_the_order(names, fraction, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert carve(shuffled, fraction) == carve(names, fraction)


def test_carving_is_not_by_the_alphabet():
    _, carved = carve(map(chr, range(1000)), 0.1)
    assert carved != tuple(map(chr, range(100)))
    assert 350 < sum(map(ord, carved)) / len(carved) < 650


@pytest.mark.parametrize(
    ("names", "fraction", "said"), [("ab", 0, "got 0"), ("ab", 1.0, "got 1.0"), ("a", 0.5, "Cannot split 1")]
)
def test_what_cannot_be_carved_is_refused(names, fraction, said):
    with pytest.raises(ValueError, match=said):
        carve(names, fraction)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Split(("a",), (), ("c",)), "The val part of here is empty"),
        (Split(("a", "x"), ("b",), ("c",)), "1 samples of the train part of here are absent: x"),
        (Split(("a",), ("a",), ("c",)), "1 samples are named more than once in here: a"),
        (Split(("a", "a"), ("b",), ("c",)), "1 samples are named more than once in here: a"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(split, said):
    with pytest.raises(ValueError, match=said):
        split.check("abc", source="here")


def test_a_split_that_leaves_samples_out_is_fine():
    split = Split(("a",), ("b",), ("c",))
    split.check("abcd", source="here")


def test_names_are_read_with_or_without_suffix(tmp_path):
    file = tmp_path / "train.txt"
    file.write_text("a.jpg\n\nb.v1 \nc\r\n", encoding="utf-8")
    assert read_names(file) == ("a", "b.v1", "c")


def test_a_list_without_names_is_refused(tmp_path):
    file = tmp_path / "train.txt"
    file.write_text("\n")
    with pytest.raises(ValueError, match=r"train\.txt names no sample"):
        read_names(file)
