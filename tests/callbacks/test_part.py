import lightning as L
import pytest
import torch
from torch import Tensor, nn

from seg_pruning.callbacks.part import network_of
from seg_pruning.surgery.errors import PruningError
from tests.callbacks.modules import Data, SkipNet, Stranger, fit, pruning, size


class NoForward(Stranger):
    """Its network is called by name."""

    forward = L.LightningModule.forward

    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.BCEWithLogitsLoss()

    def training_step(self, batch, batch_idx):
        return self.loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(self.net(batch[0]), batch[1]))


class Three(NoForward):
    """A teacher that is frozen, a student, and a network that only reads the student's answer."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher, self.critic = self.net, SkipNet(), nn.Conv2d(1, 1, 1)
        del self.net
        self.teacher.requires_grad_(False)

    def training_step(self, batch, batch_idx):
        wanted = self.teacher(batch[0]).sigmoid()
        return self.loss(self.critic(self.student(batch[0])), wanted)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(self.student(batch[0]), batch[1]))


def shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in module.parameters()]


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_a_module_without_a_forward(tmp_path, criterion):
    module = NoForward()
    fit(tmp_path, module, pruning(criterion=criterion))
    assert size(module.net) <= 0.5 * size(SkipNet())


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_one_network_of_three(tmp_path, criterion):
    module = Three()
    before = shapes(module.teacher), shapes(module.critic)
    trainer = fit(tmp_path, module, pruning(criterion=criterion, module="student"))
    assert size(module.student) <= 0.5 * size(SkipNet())
    assert (shapes(module.teacher), shapes(module.critic)) == before
    again = Three()
    trainer.validate(again, Data(), ckpt_path=tmp_path / "checkpoints" / "epoch=4.ckpt", verbose=False)
    assert shapes(again) == shapes(module)


def test_two_networks_of_three_have_a_callback_each(tmp_path):
    module = Three()
    module.teacher.requires_grad_(True)
    first = pruning(module="student", start_epoch=2)
    second = pruning(module="teacher", budget={"params": 0.7})
    trainer = fit(tmp_path, module, first, second)
    assert size(module.student) <= 0.5 * size(SkipNet())
    assert 0.6 * size(SkipNet()) < size(module.teacher) <= 0.7 * size(SkipNet())
    assert first.state_key != second.state_key
    tables = {file.parent.name: file.read_text() for file in (tmp_path / "checkpoints").rglob("pareto.csv")}
    assert {part: table.count(".ckpt") for part, table in tables.items()} == {
        "student": 1,
        "teacher": 3,
    }
    dense = torch.load(tmp_path / "checkpoints" / "dense.ckpt", weights_only=True)
    assert "seg_pruning" not in dense
    again = Three()
    trainer.validate(again, Data(), ckpt_path=tmp_path / "checkpoints" / "epoch=4.ckpt", verbose=False)
    assert shapes(again) == shapes(module)
    assert {f"prune/{part}/params" for part in tables} <= set(
        (tmp_path / "metrics.csv").read_text().split("\n")[0].split(",")
    )


class Adversary(L.LightningModule):
    """Two networks, each with an optimizer of its own, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = SkipNet(), SkipNet(4)
        self.steps: list[list[Tensor]] = []

    def forward(self, images):
        return self.generator(images)

    def training_step(self, batch, batch_idx):
        ours, theirs = self.optimizers()
        made = self(batch[0])
        answer = self.discriminator(made.expand(-1, 3, -1, -1))
        ours.zero_grad()
        self.manual_backward(-answer.mean(), retain_graph=True)
        self.steps.append([p.grad * p.detach() for p in self.generator.parameters()])
        ours.step()
        theirs.zero_grad()
        fake = self.discriminator(made.detach().expand(-1, 3, -1, -1))
        self.manual_backward(fake.mean() - self.discriminator(batch[0]).mean())
        theirs.step()

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return [torch.optim.SGD(net.parameters(), lr=0.01) for net in (self.generator, self.discriminator)]


@pytest.mark.parametrize("name", ["", "generator"])
def test_scores_are_read_at_the_steps_of_the_networks_own_optimizer(tmp_path, monkeypatch, name):
    module, run = Adversary(), pruning(criterion="taylor", module=name, end_epoch=1)
    seen: list[int] = []
    monkeypatch.setattr(run.scores.running, "update", lambda *_, **__: seen.append(len(module.steps)))
    with pytest.raises(PruningError):  # nothing was gathered, so the cut at epoch 1 has no scores
        fit(tmp_path, module, run, max_epochs=2)
    assert seen == [1, 2, 3]  # once for each batch, though two optimizers stepped


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (Three, "", r"no forward of its own, and 3 parts.*teacher, critic.*module="),
        (Three, "students", r"names no part.*student"),
        (Three, "loss", "names no part"),
    ],
)
def test_what_cannot_be_meant(make, name, message):
    with pytest.raises(PruningError, match=message):
        network_of(make(), name)


def test_any_forward_of_the_users_counts():
    module = NoForward()
    assert network_of(Stranger(), "").__class__ is Stranger
    assert network_of(module, "") is module.net
    module.forward = module.net.forward
    assert network_of(module, "") is module


@pytest.mark.parametrize(
    ("first", "second"), [("", "student"), ("student", ""), ("student.first", "student")]
)
def test_the_same_is_not_pruned_twice(tmp_path, first, second):
    with pytest.raises(PruningError, match="of which one holds the other"):
        fit(tmp_path, Three(), pruning(module=first), pruning(module=second))


def test_a_floor_is_for_one_part_alone(tmp_path):
    guarded = pruning(module="student", budget={"params": 0.5, "min": {"val/loss": 0.0}})
    with pytest.raises(PruningError, match="a floor on metrics"):
        fit(tmp_path, Three(), guarded, pruning(module="teacher"))
