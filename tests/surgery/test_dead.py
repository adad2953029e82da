import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.dead import dead_modules
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.files import load_pruned_, save_pruned
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


SHALLOW = [
    ("linknet", "resnet18", {"encoder_depth": 3}),
    ("pspnet", "efficientnet-b0", {"encoder_depth": 3}),
]


@pytest.mark.parametrize(("decoder", "encoder", "options"), SHALLOW)
def test_other_shallow_decoders_lose_their_dead_stages_too(decoder, encoder, options, tmp_path):
    """In one step with an optimizer, and through a file."""

    def build():
        return smp.create_model(decoder, encoder, encoder_weights=None, classes=2, **options).eval()

    torch.manual_seed(0)
    model, x = build(), torch.randn(1, 3, 64, 64)
    dense, before = sum(p.numel() for p in model.parameters()), answers(model, x)
    optimizer = torch.optim.SGD(model.parameters(), 0.0, momentum=0.9)
    graph = trace(model, x)
    dead = dead_modules(model, graph)
    idle = sum(p.numel() for name, p in model.named_parameters() if name in graph.idle)
    apply_(model, graph.cut(Plan({}, {}, dropped=dead)), optimizers=[optimizer])
    left = sum(p.numel() for p in model.parameters())
    assert left == dense - idle
    assert left < 0.7 * dense
    assert torch.equal(answers(model, x)[0], before[0])
    assert sum(p.numel() for p in optimizer.param_groups[0]["params"]) == left
    save_pruned(model, tmp_path / "net.safetensors")
    other = build()
    load_pruned_(other, tmp_path / "net.safetensors")
    assert sum(p.numel() for p in other.parameters()) == left
    assert torch.equal(answers(other, x)[0], before[0])


class Holder(nn.Module):
    """Reads a parameter and a buffer out of modules that are never called, and never reads others."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.table = nn.Conv2d(3, 3, 1)  # its buffer is read, its parameters are not
        self.table.register_buffer("offset", torch.ones(1))
        self.part = nn.Module()
        self.part.read, self.part.idle = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(5))
        self.first = self.second = nn.Conv2d(4, 4, 1)  # one dead module under two names
        self.tied = nn.Conv2d(3, 8, 1)
        self.tied.weight = self.stem.weight
        self.dead = nn.ModuleDict({"inner": nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))})

    def forward(self, x):
        return self.head(self.stem(x) * self.part.read + self.table.offset)


def test_only_what_nobody_reads_is_dead():
    torch.manual_seed(0)
    model, x = Holder().eval(), torch.randn(1, 3, 4, 4)
    graph = trace(model, x)
    before = answers(model, x)
    assert dead_modules(model, graph) == ("dead",)
    apply_(model, graph.cut(Plan({}, {}, dropped=("dead",))))
    assert torch.equal(answers(model, x)[0], before[0])
    assert model.part.idle.shape == (5,)
