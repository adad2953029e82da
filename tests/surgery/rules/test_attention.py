import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.surgery.rules.probe import Probe

attention = F.scaled_dot_product_attention


def test_heads_meet_and_values_pass():
    probe = Probe(attention, (1, 3, 5, 4), (1, 3, 7, 4), (1, 3, 7, 4))
    assert probe.tied(0, 1, 1, 1)
    assert probe.tied(0, 1, 2, 1)
    assert (probe.ledger.vector(probe.outputs[0], 3) == probe.labels(2, 3)).all()
    assert probe.free(2, 3)


def test_the_width_of_queries_is_fixed_by_the_scale():
    probe = Probe(attention, (1, 3, 5, 4), (1, 3, 7, 4), (1, 3, 7, 4))
    assert not probe.free(0, 3)
    assert not probe.free(1, 3)
    assert "takes its scale" in probe.reasons


def test_a_mask_is_pinned():
    probe = Probe(lambda q, k, v, m: attention(q, k, v, attn_mask=m), *[(2, 3, 5, 4)] * 3, (2, 3, 5, 5))
    assert not any(probe.free(3, d) for d in range(4))


def test_work_is_counted_as_torch_counts():
    shapes = (2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)
    probe = Probe(attention, *shapes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        attention(*probe.inputs)
    assert sum(work.macs for work in probe.ledger.work) == counter.get_total_flops() // 2
