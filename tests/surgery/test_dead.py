import pytest
import segmentation_models_pytorch as smp
import torch

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.dead import dead_modules
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import answers


def test_deep_stages_that_a_shallow_decoder_never_reads_are_dropped_without_loss():
    torch.manual_seed(0)
    model = smp.PSPNet("resnet18", encoder_weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    dense = sum(p.numel() for p in model.parameters())
    before = answers(model, x)
    graph = trace(model, x)
    dead = dead_modules(model, graph)
    apply_(model, graph.cut(Plan({}, {}, dropped=dead)))
    assert torch.equal(answers(model, x)[0], before[0])
    assert sum(p.numel() for p in model.parameters()) <= 0.08 * dense
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_outermost_modules_are_named():
    model = NETWORKS["DeadBranch"]()
    graph = trace(model, model.example())
    assert dead_modules(model, graph) == ("unused",)


def test_what_training_runs_is_not_dead():
    model = NETWORKS["Auxiliary"]()
    graph = trace(model, model.example())
    assert dead_modules(model, graph) == ()


def test_nothing_is_dead_where_training_cannot_be_seen():
    class Fussy(NETWORKS["DeadBranch"]):
        def forward(self, x):
            if self.training:
                raise ValueError("give targets")
            return super().forward(x)

    model = Fussy()
    graph = trace(model, model.example())
    assert graph.idle
    assert dead_modules(model, graph) == ()


@pytest.mark.parametrize(
    ("path", "message"), [("stem", "which runs: it reads stem"), ("no.such", "is no module")]
)
def test_only_what_never_runs_can_be_dropped(path, message):
    model = NETWORKS["DeadBranch"]()
    graph = trace(model, model.example())
    with pytest.raises(PruningError, match=message):
        graph.cut(Plan({}, {}, dropped=(path,)))
