from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seg_pruning.profiling import Cost, cost
from seg_pruning.surgery.errors import PruningError


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class Noisy(nn.Module):
    """Draws random numbers in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, image: Tensor) -> Tensor:
        return F.dropout(self.norm(image), training=True)


IMAGE = torch.zeros(2, 4, 10, 8)
TOKENS = 6


@pytest.mark.parametrize(
    ("model", "example", "macs", "params"),
    [
        # output elements times weights read for each
        (nn.Conv2d(4, 6, 3, padding=1), IMAGE, (2 * 6 * 10 * 8) * (4 * 9), 6 * 4 * 9 + 6),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE, (2 * 6 * 5 * 4) * (4 * 9), 6 * 4 * 9 + 6),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), IMAGE, (2 * 6 * 10 * 8) * (2 * 9), 6 * 2 * 9 + 6),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), IMAGE, (2 * 4 * 10 * 8) * 9, 4 * 9 + 4),
        # input elements times weights written from each
        (nn.ConvTranspose2d(4, 6, 2, stride=2), IMAGE, (2 * 4 * 10 * 8) * (6 * 4), 4 * 6 * 4 + 6),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), IMAGE, (2 * 4 * 10 * 8) * (3 * 4), 4 * 3 * 4 + 6),
        (nn.Linear(5, 7), torch.zeros(3, 5), 3 * 5 * 7, 5 * 7 + 7),
        (nn.Linear(5, 7), torch.zeros(3, 2, 5), 3 * 2 * 5 * 7, 5 * 7 + 7),
        # 2 images, 3 heads: scores of each query with each key, then as many weighted values
        (Attention(), (torch.zeros(2, 3, TOKENS, 8),) * 3, 2 * 3 * (TOKENS**2 * 8) * 2, 0),
        (nn.BatchNorm2d(4), IMAGE, 0, 8),
    ],
    ids=str,
)
def test_counts_by_hand(model: nn.Module, example: Any, macs: int, params: int) -> None:
    found = cost(model, example)
    assert found == Cost(params=params, macs=macs)
    assert found.flops == 2 * macs


def test_a_transformer_layer_in_eval_mode_is_not_free() -> None:
    """torch runs it in one fused kernel, which its own counter does not know."""
    width, hidden, batch = 8, 16, 2
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).eval()
    projections = 4 * TOKENS * width**2 + 2 * TOKENS * width * hidden
    attention = 2 * TOKENS**2 * width
    enabled = torch.backends.mha.get_fastpath_enabled()
    assert cost(layer, torch.zeros(batch, TOKENS, width)).macs == batch * (projections + attention)
    assert torch.backends.mha.get_fastpath_enabled() == enabled


def test_a_shared_parameter_counts_once_and_a_frozen_one_too() -> None:
    layer = nn.Linear(4, 4, bias=False).requires_grad_(False)
    assert cost(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4)) == Cost(params=16, macs=32)


def test_positional_and_keyword_arguments_agree() -> None:
    query, key = torch.zeros(1, 1, 5, 4), torch.zeros(1, 1, 7, 4)
    by_name = cost(Attention(), {"query": query, "value": key, "key": key})
    assert by_name == cost(Attention(), (query, key, key))
    assert by_name.macs == 2 * 5 * 7 * 4


def test_counting_changes_nothing() -> None:
    model = nn.Sequential(Noisy(), nn.Dropout()).train()
    model[0].norm.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    cost(model, torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), rng)
    assert [m.training for m in model.modules()] == [True, True, False, True]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_modes_come_back_after_an_error() -> None:
    model = nn.Conv2d(3, 4, 3).train()
    with pytest.raises(RuntimeError, match="channels"):
        cost(model, torch.zeros(1, 5, 8, 8))
    assert model.training


def test_example_inputs_of_no_known_form_are_refused() -> None:
    with pytest.raises(PruningError, match="dict"):
        cost(nn.Identity(), [torch.zeros(1)])  # type: ignore[arg-type]
