"""There are three batches in an epoch; cuts at epochs 1 and 3."""

from functools import partial

import lightning as L
import pytest
import torch
from torch import nn

from seg_pruning import prune_
from seg_pruning.callbacks import DENSE_CHECKPOINT, Distillation
from seg_pruning.callbacks.distillation_losses import attention_loss, logit_loss
from seg_pruning.surgery.errors import PruningError
from tests.callbacks.interrupted import GOING_ON, assert_goes_on
from tests.callbacks.modules import Stranger, fit, pruning, size

pytestmark = GOING_ON


def keep(features, module, args, output):
    features["first"] = output


class Step(L.Callback):
    """The gradients of one training step after the cut, beside what they should be, worked out anew."""

    def __init__(self, distillation: Distillation, at: int, scale: float = 1.0, of: str = "") -> None:
        self.distillation, self.at, self.scale, self.of = distillation, at, scale, of
        self.compared = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at and batch_idx % trainer.accumulate_grad_batches == 0:
            self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}
            self.batches = []
        if trainer.global_step == self.at:
            torch.manual_seed(self.at + batch_idx)
            self.batches.append((batch, self.at + batch_idx))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step != self.at:
            return
        dense = Stranger()
        file = torch.load(trainer.checkpoint_callback.dirpath + "/" + DENSE_CHECKPOINT, weights_only=True)
        dense.load_state_dict(file["state_dict"])
        dense.eval().requires_grad_(False)
        parameters = dict(pl_module.named_parameters())
        twins = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
        total = 0.0
        for (images, masks), seed in self.batches:
            torch.manual_seed(seed)
            noisy = images + 0.1 * torch.randn_like(images)
            features: dict[str, torch.Tensor] = {}
            with torch.no_grad():
                wanted = dense(noisy)
                attention = dense.net.first(noisy)
            handle = pl_module.net.first.register_forward_hook(partial(keep, features))
            buffers = {name: value.clone() for name, value in pl_module.named_buffers()}
            output = torch.func.functional_call(pl_module, {**twins, **buffers}, (noisy,))
            handle.remove()
            own = nn.functional.binary_cross_entropy_with_logits(output, masks)
            d = self.distillation
            term = d.weight * logit_loss(output, wanted, temperature=d.temperature)
            if d.features:
                term = term + d.feature_weight * attention_loss(features["first"], attention)
            total = total + (own + term) / trainer.accumulate_grad_batches
        expected = torch.autograd.grad(total, list(twins.values()))
        for parameter, gradient in zip(parameters.values(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
            self.compared += 1


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"weight": 2.0, "temperature": 3.0},
        {"weight": 0.5, "features": ("net.first",), "feature_weight": 10.0},
    ],
    ids=["logits", "features"],
)
def test_gradients_are_those_of_the_sum(tmp_path, options, accumulate):
    distillation = Distillation(**options)
    step = Step(distillation, at=4 if accumulate == 1 else 2)
    module = Stranger()
    fit(
        tmp_path, module, distillation, pruning(), step, accumulate_grad_batches=accumulate, max_epochs=4
    )  # named before the pruning: the order does not matter
    assert step.compared == len(list(module.parameters()))


def test_the_teacher_is_nobodys(tmp_path):
    module, distillation = Stranger(), Distillation()
    names = set(module.state_dict())
    trainer = fit(tmp_path, module, pruning(), distillation)
    assert set(module.state_dict()) == names
    file = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert set(file["state_dict"]) == names
    held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    teacher = distillation.teacher
    assert not held & {id(parameter) for parameter in teacher.parameters()}
    assert not any(part.training for part in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    dense = torch.load(tmp_path / "checkpoints" / DENSE_CHECKPOINT, weights_only=True)["state_dict"]
    assert all(torch.equal(value, dense[name]) for name, value in teacher.state_dict().items())
    assert "training_step" not in vars(module)  # the module is as it was
    assert not module._forward_hooks


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_run_goes_on_to_the_bit(tmp_path, after):
    def own() -> list[L.Callback]:
        return [pruning(), Distillation(features=["net.first"])]

    assert_goes_on(tmp_path, own, epoch=after, max_epochs=5)


def test_going_on_without_the_dense_checkpoint_is_refused(tmp_path):
    fit(tmp_path, Stranger(), pruning(), Distillation(), max_epochs=4)
    (tmp_path / "checkpoints" / DENSE_CHECKPOINT).unlink()
    with pytest.raises(PruningError, match=r"teacher cannot be read from .*dense.ckpt"):
        fit(
            tmp_path,
            Stranger(),
            pruning(),
            Distillation(),
            ckpt_path=tmp_path / "checkpoints" / "epoch=2.ckpt",
        )


def test_a_teacher_of_ones_own_teaches_from_the_first_step(tmp_path):
    fit(tmp_path / "a", Stranger(), max_epochs=1)
    module = Stranger()
    path = str(tmp_path / "a" / "checkpoints" / "last.ckpt")
    distillation = Distillation(teacher=path)
    trainer = fit(tmp_path / "b", module, pruning(), distillation)
    assert size(distillation.teacher) > size(module)
    assert float(trainer.callback_metrics["train/distillation"]) > 0
    wanted = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, wanted[name]) for name, value in distillation.teacher.state_dict().items())


@pytest.mark.parametrize("same", [True, False], ids=["same module", "fresh module"])
def test_a_second_training_with_the_same_objects(tmp_path, same):
    """Of the same module the dense network goes on teaching; a fresh one teaches itself, once it is cut."""
    cuts, distillation, module = pruning(), Distillation(), Stranger()
    fit(tmp_path / "a", module, cuts, distillation)
    first = distillation.teacher
    module = module if same else Stranger()
    trainer = fit(tmp_path / "b", module, cuts, distillation)
    assert (distillation.teacher is first) is same
    assert size(distillation.teacher) == size(Stranger())
    assert float(trainer.callback_metrics["train/distillation"]) > 0


def test_a_training_that_goes_on_before_the_first_cut_has_no_teacher_yet(tmp_path):
    distillation, module = Distillation(), Stranger()
    fit(tmp_path, module, pruning(), distillation)
    first = distillation.teacher

    class NoneYet(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            assert (distillation.teacher is None) == (trainer.current_epoch < 2)

    early = tmp_path / "checkpoints" / "epoch=0.ckpt"
    later = pruning(start_epoch=2)
    fit(tmp_path, module, later, distillation, NoneYet(), ckpt_path=early, max_epochs=4)
    assert distillation.teacher is not first


def test_without_a_cut_there_has_to_be_a_teacher(tmp_path):
    with pytest.raises(PruningError, match=r"nothing cuts this one: add IterativePruning .*teacher="):
        fit(tmp_path / "a", Stranger(), Distillation())
    fit(tmp_path / "b", Stranger(), max_epochs=1)
    path = str(tmp_path / "b" / "checkpoints" / "last.ckpt")
    trainer = fit(tmp_path / "c", Stranger(), Distillation(teacher=path), max_epochs=1)
    assert "train/distillation" in trainer.callback_metrics


def test_the_dense_network_teaches_one_that_was_cut_before_training(tmp_path):
    fit(tmp_path / "a", Stranger(), max_epochs=1)
    module, path = Stranger(), str(tmp_path / "a" / "checkpoints" / "last.ckpt")
    prune_(module.net, torch.randn(1, 3, 8, 8), budget={"params": 0.5})
    distillation = Distillation(teacher=path)
    fit(tmp_path / "b", module, distillation, max_epochs=1)
    assert size(module) < size(distillation.teacher) == size(Stranger())


class Parts(Stranger):
    def training_step(self, batch, batch_idx):
        images, masks = batch
        return {"loss": nn.functional.binary_cross_entropy_with_logits(self.net(images), masks), "note": 1}


def test_a_part_of_the_module(tmp_path):
    with pytest.raises(PruningError, match=r"never calls the module itself.*of="):
        fit(tmp_path / "a", Parts(), pruning(), Distillation())
    trainer = fit(tmp_path / "b", Parts(), pruning(), Distillation(of="net", features=["first"]))
    assert float(trainer.callback_metrics["train/distillation"]) > 0


class Manual(Stranger):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distillation(weight=-1.0), "weight to be 0 or more, but got -1.0"),
        (lambda: Distillation(temperature=0.0), "temperature to be above 0"),
        (lambda: Distillation(activation="relu"), "one of .* 'relu'"),
        (lambda: Distillation(features="net"), "list of names"),
        (lambda: Distillation(features=None), "list of names, but got None"),
        (lambda: Distillation(weight="1"), "weight to be 0 or more, but got '1'"),
        (lambda: Distillation(temperature=None), "temperature to be above 0, but got None"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(PruningError, match=message):
        make()


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Manual, {}, "optimizes by hand.*calls backward itself"),
        (Stranger, {"features": ["net.frist"]}, "cannot find .*frist"),
    ],
)
def test_what_cannot_work_is_refused_before_a_step(tmp_path, module, options, message):
    with pytest.raises(PruningError, match=message):
        fit(tmp_path, module(), pruning(), Distillation(**options))
