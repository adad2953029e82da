"""The metric that a module logs, group by group, as the trainer validates it."""

import copy
import json
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import seg_pruning as sp
from seg_pruning.pruning.criteria import Activation
from seg_pruning.pruning.sensitivity_record import read_sensitivity
from seg_pruning.report.sensitivity import SensitivityOptions, measure_sensitivity
from seg_pruning.tasks import SemanticSegmentation
from tests.tasks.tiny import TinyData, TinyNet

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def trainer(**options: object) -> L.Trainer:
    return L.Trainer(**QUIET, **options, enable_checkpointing=False)  # type: ignore[arg-type]


def task(seed: int = 0) -> SemanticSegmentation:
    torch.manual_seed(seed)
    return SemanticSegmentation(TinyNet(8))


def dice(network: nn.Module, images: Tensor, masks: Tensor) -> float:
    """Mean over the images of Dice, by its definition."""
    with torch.no_grad():
        found = network.eval()(images)[:, 0] > 0
    scores = []
    for mine, truth in zip(found, masks.bool(), strict=True):
        both, either = (mine & truth).sum().item(), mine.sum().item() + truth.sum().item()
        scores.append(2 * both / either if either else 1.0)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("limit", [2, None])
def test_each_point_is_the_metric_of_the_cut_network_on_the_first_batches(limit: int | None) -> None:
    module, data = task(), TinyData(images=6)
    options = SensitivityOptions(ratios=(0.25, 0.75), limit=limit)
    before = copy.deepcopy(module.network.state_dict())
    rows = measure_sensitivity(trainer(), module, data, options)
    drawn = data.val_dataloader().dataset
    seen = slice(0, None if limit is None else 2 * limit)
    network = copy.deepcopy(module.network)
    whole = dice(network, drawn.images[seen], drawn.masks[seen])
    assert [row.kept for row in rows] == [6, 2]
    for row in rows:
        cut = copy.deepcopy(network)
        weight = cut.stem.weight.flatten(1).square().sum(1) + cut.stem.bias.square()
        weak = (weight + cut.head.weight.flatten().square()).argsort()[: 8 - row.kept]
        with torch.no_grad():
            cut.head.weight[:, weak] = 0
        expected = dice(cut, drawn.images[seen], drawn.masks[seen])
        assert row.metric == pytest.approx(expected, abs=1e-6)
        assert row.drop == pytest.approx(whole - expected, abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in module.network.state_dict().items())
    assert "val_dataloader" not in vars(data)


def test_any_metric_that_validation_logs() -> None:
    options = SensitivityOptions(metric="val/loss", mode="min", ratios=[0.5])
    (row,) = measure_sensitivity(trainer(), task(), TinyData(), options)
    dense = trainer()
    dense.validate(task(), datamodule=TinyData(), verbose=False)
    assert row.drop == pytest.approx(row.metric - dense.callback_metrics["val/loss"].item(), abs=1e-6)


def test_a_metric_that_is_not_logged_is_told_with_those_that_are() -> None:
    with pytest.raises(sp.PruningError, match=r"logs no 'val/pq'; choose as metric one of .*val/dice"):
        measure_sensitivity(trainer(), task(), TinyData(), SensitivityOptions(metric="val/pq"))


def test_gradients_come_from_training_batches() -> None:
    """The criterion's answer is that of `score` on the same pairs."""
    module, data = task(), TinyData(images=4)
    options = SensitivityOptions(criterion="taylor", ratios=[0.5], limit=1)
    (row,) = measure_sensitivity(trainer(), module, data, options)
    drawn = data.train_dataloader().dataset
    pairs = [((drawn.images[:2],), drawn.masks[:2])]
    graph = sp.trace(module, torch.zeros(1, 3, 32, 32))
    scores = sp.score(graph, module, "taylor", data=pairs, loss=module.loss)[row.group]
    with torch.no_grad():
        module.network.head.weight[:, scores.argsort()[:4]] = 0
    images = data.val_dataloader().dataset
    assert row.metric == pytest.approx(dice(module.network, images.images[:2], images.masks[:2]), abs=1e-6)


class Normed(L.LightningModule):
    """Somebody else's module, whose batches are pairs; its metric is the answer on the first batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(image)).relu())

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("answer", self(batch[0]).mean())


class Pairs(L.LightningDataModule):
    def loader(self, seed: int) -> DataLoader:
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(8, 3, 4, 4, generator=generator) * 5 + seed
        return DataLoader([(image, 0) for image in images], batch_size=4)

    def train_dataloader(self) -> DataLoader:
        return self.loader(1)

    def val_dataloader(self) -> DataLoader:
        return self.loader(2)


def test_norms_are_recalibrated_on_training_batches() -> None:
    module, data = Normed(), Pairs()
    options = SensitivityOptions(metric="answer", ratios=[0.5], limit=1, recalibrate=2)
    (row,) = measure_sensitivity(trainer(), module, data, options)
    assert torch.equal(module.norm.running_mean, torch.zeros(4)), "of the module itself nothing is taken anew"
    assert module.norm.momentum == 0.1
    graph = sp.trace(module, torch.zeros(1, 3, 4, 4))
    gone = sp.score(graph, module, "l2")[row.group].argsort()[:2]
    with torch.no_grad():
        parts = [module.stem(images) for images, _ in data.train_dataloader()]
        module.norm.running_mean.copy_(torch.stack([p.mean((0, 2, 3)) for p in parts]).mean(0))
        module.norm.running_var.copy_(
            torch.stack([p.transpose(0, 1).flatten(1).var(1) for p in parts]).mean(0)
        )
        module.head.weight[:, gone] = 0
        expected = module.eval()(next(iter(data.val_dataloader()))[0]).mean().item()
    assert row.metric == pytest.approx(expected, rel=1e-4)


def test_a_module_in_half_precision_is_called_with_noise_of_its_dtype() -> None:
    module = Normed()
    options = SensitivityOptions(metric="answer", ratios=[0.5])
    (row,) = measure_sensitivity(trainer(precision="bf16-true"), module, Pairs(), options)
    assert module.stem.weight.dtype == torch.bfloat16
    (exact,) = measure_sensitivity(trainer(), Normed(), Pairs(), options)
    assert (row.group, row.kept) == (exact.group, 2)
    assert row.metric == pytest.approx(exact.metric, rel=0.05)


@pytest.mark.parametrize("criterion", ["activation", Activation(statistic="apoz")])
def test_outputs_of_training_batches_are_enough_where_no_loss_is_needed(criterion: str | Activation) -> None:
    module, data = Normed(), Pairs()
    options = SensitivityOptions(metric="answer", criterion=criterion, ratios=[0.5], limit=1)
    (row,) = measure_sensitivity(trainer(), module, data, options)
    images, _ = next(iter(data.train_dataloader()))
    graph = sp.trace(module, torch.zeros(1, 3, 4, 4))
    gone = sp.score(graph, module, criterion, data=[images])[row.group].argsort()[:2]
    with torch.no_grad():
        module.head.weight[:, gone] = 0
        expected = module.eval()(next(iter(data.val_dataloader()))[0]).mean().item()
    assert row.metric == pytest.approx(expected, rel=1e-4)


def test_gradients_are_refused_for_a_module_whose_loss_is_not_known() -> None:
    options = SensitivityOptions(metric="answer", criterion="taylor")
    with pytest.raises(
        sp.PruningError, match=r"'taylor' needs a loss .* and not of Normed: choose one without"
    ):
        measure_sensitivity(trainer(), Normed(), Pairs(), options)


def test_several_devices_are_refused() -> None:
    two = trainer(devices=2, strategy="ddp_spawn")
    with pytest.raises(sp.PruningError, match="one device; the trainer has 2"):
        measure_sensitivity(two, task(), TinyData())


def test_rows_of_other_data_or_another_metric_are_refused(tmp_path: Path) -> None:
    path, options = tmp_path / "s.csv", SensitivityOptions(ratios=[0.5], limit=1)
    rows = measure_sensitivity(trainer(), task(), TinyData(), options, path=path)
    assert read_sensitivity(path) == rows
    assert measure_sensitivity(trainer(), task(), TinyData(), options, path=path) == rows
    others = [
        (TinyData(size=16), options, "data: "),
        (TinyData(), SensitivityOptions(ratios=[0.5], limit=2), "limit: 1 there, 2 here"),
        (
            TinyData(),
            SensitivityOptions("val/iou", ratios=[0.5], limit=1),
            "metric: val/dice there, val/iou here",
        ),
        (
            TinyData(),
            SensitivityOptions(ratios=[0.5], limit=1, recalibrate=1),
            "recalibrate: 0 there, 1 here",
        ),
    ]
    for data, changed, message in others:
        with pytest.raises(sp.PruningError, match=message):
            measure_sensitivity(trainer(), task(), data, changed, path=path)
    assert json.loads((tmp_path / "s.json").read_text())["about"]["metric"] == "val/dice"
    assert read_sensitivity(path) == rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit to be 1 or more batches, but got 0"),
        ({"recalibrate": -1}, "recalibrate to be 0 or more"),
        ({"ratios": [1.5]}, "expected ratios"),
        ({"protect": "head"}, "protect to be a tuple of names"),
        ({"criterion": "l3"}, "no criterion is called 'l3'"),
    ],
)
def test_options_are_refused_at_once(options: dict[str, object], message: str) -> None:
    with pytest.raises(sp.PruningError, match=message):
        SensitivityOptions(**options)  # type: ignore[arg-type]
