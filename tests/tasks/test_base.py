import subprocess
import sys
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks import SemanticSegmentation
from tests.tasks.tiny import TinyData, TinyNet

TINY = "tu-test_resnet.r160_in1k"


def fit(task, folder, **arguments):
    options = {"max_epochs": 1, "limit_val_batches": 0, "logger": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **(options | arguments)
    )
    trainer.fit(task, TinyData())
    return trainer


def saved(task, folder):
    file = folder / "task.ckpt"
    fit(task, folder).save_checkpoint(file)
    return file


def test_a_checkpoint_of_names_loads_in_a_fresh_process(tmp_path):
    task = SemanticSegmentation("unet", encoder=TINY, classes=["polyp"], loss="dice")
    file = saved(task, tmp_path)
    assert torch.load(file, weights_only=True)["hyper_parameters"] == {
        "arch": "unet",
        "classes": ["polyp"],
        "encoder": TINY,
        "encoder_weights": None,
        "in_channels": 3,
        "loss": "dice",
        "scheduler": None,
    }
    program = (
        "import sys, torch; from seg_pruning.tasks import SemanticSegmentation; "
        "task = SemanticSegmentation.load_from_checkpoint(sys.argv[1]).eval(); "
        "print(task.classes, repr(task(torch.ones(1, 3, 32, 32)).double().sum().item()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, file], capture_output=True, text=True, check=True, timeout=120
    )
    total = task.eval()(torch.ones(1, 3, 32, 32)).double().sum().item()
    name, value = run.stdout.rsplit(maxsplit=1)
    assert name == "('polyp',)"
    assert float(value) == pytest.approx(total, rel=1e-5)


def test_a_module_must_be_handed_over_again(tmp_path):
    file = saved(SemanticSegmentation(TinyNet(width=3)), tmp_path)
    with pytest.raises(PruningError, match=r"task\.ckpt: .*tests\.tasks\.tiny\.TinyNet.*arch=<the module>"):
        SemanticSegmentation.load_from_checkpoint(file)
    task = SemanticSegmentation.load_from_checkpoint(file, arch=TinyNet(width=3))
    weights = torch.load(file, weights_only=True)["state_dict"]
    torch.testing.assert_close(task.network.stem.weight, weights["network.stem.weight"])


def test_a_live_optimizer_is_left_out_of_the_checkpoint(tmp_path):
    task = SemanticSegmentation(TinyNet(), optimizer=partial(torch.optim.SGD, lr=0.1))
    assert "optimizer" not in torch.load(saved(task, tmp_path), weights_only=True)["hyper_parameters"]


def test_loading_fetches_no_pretrained_weights(tmp_path, monkeypatch):
    task = SemanticSegmentation("unet", encoder=TINY)
    task.hparams["encoder_weights"] = "imagenet"
    file = saved(task, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail("fetched"))
    SemanticSegmentation.load_from_checkpoint(file)


def test_another_network_is_told(tmp_path):
    file = saved(SemanticSegmentation("fpn", encoder=TINY, classes=2, loss="ce"), tmp_path)
    task = SemanticSegmentation("unet", encoder=TINY)
    with pytest.raises(PruningError) as raised:
        L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path).test(
            task, TinyData(), ckpt_path=file, weights_only=True
        )
    message = str(raised.value)
    assert str(file) in message
    assert (
        f"They are of arch fpn, encoder {TINY}, in_channels 3, classes 2; this task has arch unet" in message
    )
    own, other = task.state_dict(), torch.load(file, weights_only=True)["state_dict"]
    differ = [
        key for key in own | other if key not in own or key not in other or own[key].shape != other[key].shape
    ]
    listed = [line.split(":")[0].strip() for line in message.splitlines()[1:-1]]
    assert listed == differ[:10]
    assert f"{len(differ)} tensors differ" in message
    assert "config.yaml" in message
    assert "load_from_checkpoint(path)" in message


def test_shapes_that_differ_are_told():
    with pytest.raises(
        PruningError, match=r"network\.stem\.weight: \(9, 3, 3, 3\) in the file, \(4, 3, 3, 3\) in"
    ):
        SemanticSegmentation(TinyNet()).load_state_dict(SemanticSegmentation(TinyNet(width=9)).state_dict())


def test_a_checkpoint_that_does_not_exist(tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(PruningError, match=r"no checkpoint .*best\.ckpt\. .* holds last\.ckpt\."):
        SemanticSegmentation.load_from_checkpoint(tmp_path / "best.ckpt")


def test_cosine_falls_to_zero_over_the_steps_of_the_fit(tmp_path):
    task = SemanticSegmentation(TinyNet(), optimizer=partial(torch.optim.SGD, lr=0.4), scheduler="cosine")
    rates = []
    task.on_train_batch_start = lambda *_: rates.append(task.optimizers().param_groups[0]["lr"])
    fit(task, tmp_path, max_epochs=2)  # 3 batches each
    expected = 0.2 * (1 + torch.cos(torch.arange(6) * torch.pi / 6))
    assert rates == pytest.approx(expected.tolist())
    assert task.optimizers().param_groups[0]["lr"] == pytest.approx(0)


def test_cosine_needs_an_end(tmp_path):
    with pytest.raises(PruningError, match="this fit has no end: set max_epochs or max_steps"):
        fit(SemanticSegmentation(TinyNet(), scheduler="cosine"), tmp_path, max_epochs=-1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (partial(StepLR, step_size=1), None),
        (partial(CosineAnnealingLR, T_max=4), None),
        (partial(ReduceLROnPlateau, monitor="val/iou"), "val/iou"),
        (partial(TorchPlateau, mode="max"), "val/dice"),
        (partial(TorchPlateau, mode="min"), "val/loss"),
    ],
)
def test_schedulers_of_the_user(make, expected):
    optimizer = partial(torch.optim.Adam, lr=0.3)
    configured = SemanticSegmentation(TinyNet(), optimizer=optimizer, scheduler=make).configure_optimizers()
    scheduler = configured["lr_scheduler"]
    if expected is not None:
        assert scheduler["monitor"] == expected
        scheduler = scheduler["scheduler"]
    assert isinstance(configured["optimizer"], torch.optim.Adam)
    assert scheduler.optimizer is configured["optimizer"]
    assert isinstance(scheduler, make.func)
