import pytest
import torch

from seg_pruning.surgery.rules.registry import RULES, rule
from tests.surgery.rules.probe import Probe


def test_an_op_without_a_rule_pins_everything_it_touches():
    probe = Probe(torch.linalg.solve, (3, 3), (3, 4))
    assert not any(probe.free(i, d) for i in range(2) for d in range(2))
    assert "has no rule" in probe.reasons


def test_a_rule_can_be_added():
    op = torch.ops.aten.linalg_cross
    assert op not in RULES
    try:
        rule(op)(lambda ledger, call: (ledger.labels(call["self"]),))
        assert Probe(lambda a: torch.linalg.cross(a, a), (4, 3)).free(0, 0)
    finally:
        del RULES[op]
    assert not Probe(lambda a: torch.linalg.cross(a, a), (4, 3)).free(0, 0)


def test_the_in_place_form_has_the_rule_of_the_other():
    assert Probe(lambda a, b: a.addmm_(b, b.T), (4, 4), (4, 3)).tied(0, 0, 1, 0)


@pytest.mark.parametrize(
    "function", [lambda a: a.squeeze_(1), lambda a: a.t_() if a.ndim == 2 else a.swapaxes_(0, 2)]
)
def test_changing_a_shape_in_place_pins_and_forgets(function):
    probe = Probe(function, (4, 1, 3))
    assert not probe.free(0, 0)
    assert probe.ledger.labels(probe.outputs[0]) == ()
