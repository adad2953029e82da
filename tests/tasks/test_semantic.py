import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks import SemanticSegmentation
from tests.tasks.test_scores import oracle
from tests.tasks.tiny import TinyData, TinyImages, TinyNet


def trainer(folder, **arguments):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(
        accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **(options | arguments)
    )


@pytest.mark.parametrize(
    ("classes", "loss", "names"),
    [(1, "bce_dice", []), (["wall", "polyp", "tool"], "ce", ["wall", "polyp", "tool"])],
)
def test_trains_and_logs_what_it_promises(classes, loss, names, tmp_path):
    L.seed_everything(0)
    count = classes if isinstance(classes, int) else len(classes)
    task = SemanticSegmentation(
        TinyNet(width=16, classes=count),
        classes=classes,
        loss=loss,
        optimizer=lambda p: torch.optim.Adam(p, 0.05),
    )
    run = trainer(tmp_path, max_epochs=30, log_every_n_steps=1, logger=CSVLogger(tmp_path))
    before = run.validate(task, TinyData(classes=count), verbose=False)[0]
    run.fit(task, TinyData(classes=count))
    after = {key: value.item() for key, value in run.callback_metrics.items()}
    assert after["val/dice"] > max(0.85, before["val/dice"] + 0.1)
    scores = {f"{kind}{end}" for kind in ("dice", "iou") for end in ("", "_se", "_dataset")} | {
        "loss",
        "empty",
    }
    scores |= {f"{kind}_{name}" for name in names for kind in ("dice", "iou", "dice_dataset", "iou_dataset")}
    assert set(before) == {f"val/{name}" for name in scores}
    assert set(after) == {*before, "train/loss", "loss"}
    header = (
        (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    )
    assert set(header) == {*before, "train/loss", "epoch", "step"}


def test_a_test_keeps_the_scores_of_each_image(tmp_path):
    L.seed_everything(0)
    task = SemanticSegmentation(TinyNet())
    run = trainer(tmp_path)
    logged = run.test(task, TinyData(images=5), verbose=False)[0]
    images = TinyImages(images=5, size=32, classes=1, seed=2)
    predicted = (task(images.images)[:, 0] > 0).long()
    expected, whole = oracle(predicted.numpy(), images.masks.numpy(), 1)
    assert task.scores["test"].per_image()["dice"].tolist() == pytest.approx(expected[:, 0, 0].tolist())
    assert task.scores["test"].per_image()["iou"].tolist() == pytest.approx(expected[:, 0, 1].tolist())
    assert logged["test/dice"] == pytest.approx(expected[:, 0, 0].mean())
    assert logged["test/dice_se"] == pytest.approx(expected[:, 0, 0].std(ddof=1) / 5**0.5)
    assert logged["test/iou_dataset"] == pytest.approx(whole[0, 1])
    run.test(task, TinyData(images=3), verbose=False)
    assert len(task.scores["test"].per_image()["dice"]) == 3, "the images of the first test are forgotten"


def test_the_loss_of_a_test_is_the_mean_over_images(tmp_path):
    """The last batch is smaller: its images must not weigh more."""
    task = SemanticSegmentation(TinyNet(), loss="bce")
    logged = trainer(tmp_path).test(task, TinyData(images=5), verbose=False)[0]
    images = TinyImages(images=5, size=32, classes=1, seed=2)
    expected = nn.functional.binary_cross_entropy_with_logits(task(images.images)[:, 0], images.masks.float())
    assert logged["test/loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_predicts_masks(classes, tmp_path):
    task = SemanticSegmentation(TinyNet(classes=classes), classes=classes, loss="dice")
    masks = torch.cat(trainer(tmp_path).predict(task, TinyData(images=3)))
    images = TinyImages(images=3, size=32, classes=1, seed=2).images
    logits = task(images)
    probability = logits.sigmoid() if classes == 1 else logits.softmax(1)
    expected = probability[:, 0] > 0.5 if classes == 1 else probability.max(1).indices
    assert masks.dtype == torch.int64
    assert masks.shape == (3, 32, 32)
    assert torch.equal(masks, expected.long())


def one_batch(classes=1, size=32):
    images = TinyImages(images=2, size=size, classes=classes, seed=0)
    return {"image": images.images, "mask": images.masks, "name": ["a", "b"]}


@pytest.mark.parametrize(("classes", "loss"), [(1, "dice"), (2, "ce")])
def test_masks_of_more_classes_than_the_network_are_told(classes, loss):
    task = SemanticSegmentation(TinyNet(classes=classes), classes=classes, loss=loss)
    batch = one_batch(classes=4)
    with pytest.raises(
        PruningError, match=r"hold the values \[2, 3\], but a network of . class(es)? knows 0 to 1"
    ):
        task.validation_step(batch, 0)


def test_a_module_of_other_classes_is_told():
    task = SemanticSegmentation(TinyNet(classes=2), classes=3, loss="ce")
    with pytest.raises(
        PruningError, match=r"shape \(2, 2, 32, 32\) for masks.* where \(2, 3, 32, 32\) is due"
    ):
        task.training_step(one_batch(3), 0)


def test_a_module_that_gives_no_tensor_is_told():
    class Pair(nn.Module):
        def forward(self, images):
            return {"out": images}

    with pytest.raises(PruningError, match="gave a dict"):
        SemanticSegmentation(Pair()).predict_step(one_batch(), 0)


def test_a_size_that_the_network_cannot_take_is_told_before_it_runs():
    task = SemanticSegmentation("fpn", encoder="tu-test_resnet.r160_in1k")
    with pytest.raises(
        PruningError, match=r"multiples of 32 pixels, not 40 x 40\. Nearest: 32 x 32 or 64 x 64"
    ):
        task.training_step(one_batch(size=40), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes must be 1 or more, not 0"),
        ({"in_channels": 0}, "in_channels must be 1 or more, not 0"),
        ({"classes": ["a", "b", "a"], "loss": "ce"}, r"wrong in \['a', 'b', 'a'\]: \['a'\]"),
        ({"classes": ["a", "x/y"], "loss": "ce"}, r"\['x/y'\]"),
        ({"classes": ["se", "a"], "loss": "ce"}, r": \['se'\]"),
        ({"classes": []}, "names that are not empty"),
        ({"loss": "dise"}, "'dise' is no loss"),
        ({"arch": TinyNet(), "encoder_weights": "imagenet"}, "load the weights of a TinyNet before"),
    ],
)
def test_refuses(arguments, message, monkeypatch):
    monkeypatch.setattr("segmentation_models_pytorch.create_model", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(PruningError, match=message):
        SemanticSegmentation(**arguments)
