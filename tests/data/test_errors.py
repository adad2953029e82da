import pytest

from seg_pruning.data.errors import listed, refuse


@pytest.mark.parametrize(
    ("count", "tail"), [(1, "0"), (10, "8, 9"), (11, "8, 9 and 1 more"), (1000, "9 and 990 more")]
)
def test_at_most_ten_are_listed(count, tail):
    text = listed(range(count))
    assert text.endswith(tail)
    assert text.startswith("0")


def test_no_offender_is_no_error():
    assert refuse("anything", [], "Nothing to do.") is None


def test_the_error_counts_names_and_helps():
    with pytest.raises(ValueError, match=r"^2 files that are odd: a, b\. Even them\.$"):
        refuse("files that are odd", ["a", "b"], "Even them.")
