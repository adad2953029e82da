"""What was computed from sizes: taken apart, computed again with other values, and solved for one of them."""

import math
import operator

import pytest

from seg_pruning.surgery.expressions import Attribute, Computed, evaluate, factors, invert, leaves
from seg_pruning.surgery.sizes import Size

OWNER = object()


A, B = Attribute("stem", "a"), Attribute("stem", "b")


FORMULAS = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a // b,
    lambda a, b: -a + 0 * b,
    lambda a, b: 3 + a - 1,
    lambda a, b: 100 - (a * 2),
    lambda a, b: 3 * a,
    lambda a, b: 97 // a,
    lambda a, b: (a + 1) // 2 * b,
    lambda a, b: True + a * False + b,
    lambda a, b: operator.iadd(a, b),
    lambda a, b: sum([a, b, a]),
    lambda a, b: math.prod([a, 2, b]),
]


@pytest.mark.parametrize("formula", FORMULAS, ids=range(len(FORMULAS)))
def test_what_was_computed_can_be_computed_again_with_other_values(formula):
    size = formula(Size(12, A, OWNER), Size(3, B, OWNER))
    assert type(size) is Size
    assert size == formula(12, 3)
    assert size.owner is OWNER
    for a, b in ((12, 3), (7, 2), (1, 5)):
        assert evaluate(size.expression, {A: a, B: b}.__getitem__) == formula(a, b)


@pytest.mark.parametrize(
    ("expression", "above", "below"),
    [
        (A, [A], []),
        (6, [6], []),
        (Computed("*", 3, A), [3, A], []),
        (Computed("//", A, B), [A], [B]),
        (Computed("//", Computed("*", 2, A), Computed("//", B, 4)), [2, A, 4], [B]),
    ],
)
def test_factors_stand_above_and_below_the_line(expression, above, below):
    assert factors(expression) == (above, below)
    assert list(leaves(expression)) == [e for e in (*above, *below) if isinstance(e, Attribute)]


@pytest.mark.parametrize(
    "expression",
    [Computed("+", A, 1), Computed("*", 2, Computed("-", A, B)), Computed("//", Computed("+", A, 1), 2)],
)
def test_a_sum_has_no_factors(expression):
    assert factors(expression) is None


@pytest.mark.parametrize("formula", FORMULAS, ids=range(len(FORMULAS)))
@pytest.mark.parametrize("unknown", [A, B], ids=str)
def test_a_size_is_solved_for_an_attribute_that_gives_it(formula, unknown):
    expression = formula(Size(12, A, OWNER), Size(3, B, OWNER)).expression
    times = list(leaves(expression)).count(unknown)
    for target in range(-5, 60):

        def value(x, expression=expression):
            return evaluate(expression, {A: 12, B: 3, unknown: x}.__getitem__)

        found = invert(expression, unknown, target, {A: 12, B: 3}.__getitem__)
        possible = [x for x in range(-200, 201) if x and value(x) == target]  # no division by nothing
        assert found is None or value(found) == target
        divided = formula in (FORMULAS[3], FORMULAS[8]) and unknown == (B if formula is FORMULAS[3] else A)
        assert times != 1 or divided or not possible or found is not None


def test_an_attribute_that_stands_twice_is_not_solved_for():
    assert invert(Computed("*", A, A), A, 9, {A: 3}.__getitem__) is None
    assert invert(B, A, 9, {A: 3, B: 9}.__getitem__) is None
