import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seg_pruning.pruning.criteria import Activation
from seg_pruning.pruning.makers import makers_of
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.pruning.tapped import images


class Own(nn.Module):
    """A convolution that no module of torch's makes, or that is used without being called."""

    def __init__(self, *, module: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1) if module else nn.ParameterDict({"weight": torch.randn(4, 3, 1, 1)})
        self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))
        self.module, self.head = module, nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.conv2d(x, self.stem.weight if self.module else self.weight).relu())


@pytest.mark.parametrize(
    ("module", "message"), [(False, "come of no convolution"), (True, "'stem', of which channels of 'stem'")]
)
def test_what_cannot_be_heard_is_named_unless_it_is_not_read(module: bool, message: str) -> None:
    net = Own(module=module)
    graph, data = trace(net, images(1)[0]), images(2)
    with pytest.raises(PruningError, match=message):
        score(graph, net, Activation(), data=data)
    assert score(graph, net, Activation(), data=data, unread=[graph.prunable[0].name]) == {}


def test_each_layer_says_which_of_its_outputs_are_whose() -> None:
    net = NETWORKS["PartlyFixed"]().eval()
    [stem] = makers_of(trace(net, net.example()), net)  # type: ignore[arg-type]
    assert (stem.layer, stem.axis) == ("stem", -3)
    assert [(p.group, p.channels.tolist()) for p in stem.parts] == [("stem#2", list(range(7)))]
    assert stem.parts[0].places.shape == (7, 1)


def test_a_computed_weight_is_that_of_its_layer_and_a_table_puts_out_its_columns() -> None:
    net = NETWORKS["WeightNorm"]().eval()
    found = makers_of(trace(net, net.example()), net)  # type: ignore[arg-type]
    assert [(maker.layer, len(maker.parts[0].channels)) for maker in found] == [("stem", 10), ("mid", 7)]
    table = NETWORKS["Lookup"]().eval()
    [maker] = makers_of(trace(table, table.example()), table)  # type: ignore[arg-type]
    assert (maker.layer, maker.axis, len(maker.parts[0].channels)) == ("table", -1, 10)
