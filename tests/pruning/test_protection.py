import pytest
import torch
from torch import nn

from seg_pruning.pruning.protection import names_of, protected
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace


class Nested(nn.Module):
    """encoder.0 -> encoder.1 (norm) -> head; `spare` never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1), nn.ReLU())
        self.decoder = nn.Conv2d(5, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)
        self.spare = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(self.encoder(x)).relu())


GRAPH = trace(Nested(), torch.randn(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("encoder.0", {"encoder.0"}),
        ("encoder.1", {"encoder.0"}),  # the norm carries what the convolution makes
        ("encoder.2", {"encoder.2"}),  # reads encoder.0, whose width may change
        ("encoder", {"encoder.0", "encoder.2"}),
        ("enc*", {"encoder.0", "encoder.2"}),
        ("encoder.*", {"encoder.0", "encoder.2"}),
        ("encoder.[01]", {"encoder.0"}),
        ("decoder", {"decoder"}),
        ("decoder.*", {"decoder"}),  # a layer without children: its tensors
        ("decoder.bias", {"decoder"}),
        ("*.running_mean", {"encoder.0"}),
        ("*coder*", {"encoder.0", "encoder.2", "decoder"}),
        ("head.*", {"head"}),
        ("spare", set()),  # known, though it holds no channel that could leave
        ("spare.*", set()),
        ("*", {"encoder.0", "encoder.2", "decoder", "head"}),
    ],
)
def test_a_pattern_names_groups_layers_modules_or_tensors(pattern: str, groups: set[str]) -> None:
    assert protected(GRAPH, (pattern,)) == groups


def test_several_patterns_add_up_and_none_protects_nothing() -> None:
    assert protected(GRAPH, ("decoder", "encoder.0")) == {"decoder", "encoder.0"}
    assert protected(GRAPH, ()) == frozenset()


@pytest.mark.parametrize(
    ("pattern", "near"),
    [("decodr", "decoder"), ("encoder.3", r"encoder\.\d"), ("encode", "encoder"), ("coder.*", "")],
)
def test_a_name_that_nothing_has_is_refused_with_the_nearest(pattern: str, near: str) -> None:
    with pytest.raises(
        PruningError, match=rf"protect names '.*', which no group or layer .*nearest: .*{near}"
    ):
        protected(GRAPH, ("head", pattern))


def test_layers_of_a_sequential_have_names_of_one_letter() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    assert protected(trace(net, torch.randn(1, 3, 4, 4)), names_of(["0"])) == {"0"}


@pytest.mark.parametrize("value", ["head", "0", None, 3, ("head", ""), (1,)])
def test_what_is_no_collection_of_names_is_refused(value: object) -> None:
    with pytest.raises(PruningError, match="expected protect to be a tuple of names such as"):
        names_of(value)


def test_an_iterator_is_read_once() -> None:
    assert names_of(name for name in ("a", "b")) == ("a", "b")
