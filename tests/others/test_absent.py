import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.others.absent import NAN, Absent, masked_answers, plain_attention
from tests.surgery.oracle import answers, same

KEPT = torch.tensor([0, 2, 3, 6, 7])
X = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.layer_norm(x, x.shape[-1:]),
        lambda x: F.rms_norm(x, x.shape[-1:]),
        lambda x: x.softmax(-1) + x.mean(-1, keepdim=True) - x.var(-1, keepdim=True),
        lambda x: x.amax(-1, keepdim=True) * F.normalize(x, dim=-1) + x.max(-1, keepdim=True)[0],
        lambda x: x @ x.transpose(1, 2),
        lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.5),
        lambda x: torch.cdist(x, x + 1),
        lambda x: F.group_norm(x.transpose(1, 2), 1).transpose(1, 2),
    ],
)
def test_what_is_absent_counts_for_nothing(function):
    x = torch.full_like(X, NAN)
    x[..., KEPT] = X[..., KEPT]
    with plain_attention(), Absent():
        got = function(x)
    expected = function(X[..., KEPT])
    got = got[..., KEPT] if got.shape[-1] == X.shape[-1] and got.shape != expected.shape else got
    torch.testing.assert_close(got, expected)


def test_a_cut_that_keeps_other_channels_gives_itself_away():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), nn.Conv2d(6, 2, 1))
    keep = torch.tensor([True, False, True, True, False, True])
    masks = {
        "0.weight": keep.view(-1, 1, 1, 1).expand(6, 3, 1, 1),
        "0.bias": keep,
        "2.weight": keep.view(1, -1, 1, 1).expand(2, 6, 1, 1),
    }
    x = torch.rand(1, 3, 4, 4)

    def cut(read):
        small = copy.deepcopy(dense)
        small[0].weight.data, small[0].bias.data = dense[0].weight[keep], dense[0].bias[keep]
        small[2].weight.data = dense[2].weight[:, read]
        return small

    assert same(answers(cut(keep), x), masked_answers(dense, masks, x))
    assert not same(answers(cut(keep.roll(1)), x), masked_answers(dense, masks, x))


def test_what_stays_but_reads_what_is_gone_is_no_number():
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    masks = {"1.weight": torch.tensor([True, False, True, True])}
    assert masked_answers(dense, masks, torch.rand(1, 3, 4, 4))[0][:, 1].isnan().all()
