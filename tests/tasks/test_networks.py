import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file
from torch import nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks.networks import (
    build_network,
    check_image_size,
    check_network_names,
    encoder_weight_names,
    size_step,
)

TINY = "tu-test_resnet.r160_in1k"


@pytest.mark.parametrize("arch", ["unet", "FPN", "deeplabv3plus", "segformer"])
def test_builds_by_name(arch):
    network = build_network(arch, encoder=TINY, encoder_weights=None, in_channels=4, classes=2).eval()
    assert network(torch.zeros(1, 4, 64, 32)).shape == (1, 2, 64, 32)


@pytest.mark.parametrize(
    ("arch", "encoder", "weights", "message"),
    [
        ("unnet", "resnet18", None, r"'unnet' is no architecture\. Nearest: unet, .* Legal: deeplabv3, "),
        ("unet", "resnet81", None, r"'resnet81' is no encoder\. Nearest: resnet18.*get_encoder_names"),
        ("unet", "tu-restnet18", None, r"'tu-restnet18' is no encoder\. Nearest: tu-resnet18"),
        (
            "unet",
            "resnet18",
            "imagenett",
            r"'imagenett' is no set of weights for .*'resnet18'\. Nearest: imagen",
        ),
        ("unet", "tu-resnet18.a9", None, r"'a9' is no set of weights .* Legal: a1_in1k"),
        ("unet", "tu-resnet18.a1_in1k", "a2_in1k", r"'a2_in1k' is no set .* Legal: a1_in1k, imagenet\."),
        (
            "module:a.Net",
            "resnet18",
            None,
            r"given as a module \(a\.Net\).*load_from_checkpoint\(path, arch=",
        ),
    ],
)
def test_a_typo_is_told_before_anything_is_built(arch, encoder, weights, message, monkeypatch):
    monkeypatch.setattr(smp, "create_model", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(PruningError, match=message):
        build_network(arch, encoder=encoder, encoder_weights=weights, in_channels=3, classes=1)


def test_a_pair_that_does_not_fit_is_told():
    with pytest.raises(PruningError, match=r"'dpt' cannot be built with the encoder 'resnet18': Only Timm"):
        build_network("dpt", encoder="resnet18", encoder_weights=None, in_channels=3, classes=1)


def test_every_encoder_of_smp_has_legal_weights():
    for encoder, spec in smp.encoders.encoders.items():
        for weights in spec["pretrained_settings"]:
            check_network_names("unet", encoder, weights)
    assert encoder_weight_names("tu-test_resnet") == ("imagenet", "r160_in1k")
    assert encoder_weight_names("tu-resnet18.a1_in1k") == ("imagenet", "a1_in1k")


def test_encoder_weights_are_loaded(tmp_path, monkeypatch):
    """A hub that serves files of this test: what it serves is what the encoder holds."""
    source = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    save_file(
        {key: torch.full_like(value, 0.5) for key, value in source.items()}, tmp_path / "model.safetensors"
    )
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda _, filename, revision: tmp_path / filename)
    network = build_network("unet", encoder="resnet18", encoder_weights="imagenet", in_channels=3, classes=1)
    assert all((value == 0.5).all() for value in network.encoder.parameters())
    assert not all((value == 0.5).all() for value in network.decoder.parameters())


@pytest.mark.parametrize(
    ("weights", "name"), [("imagenet", "test_resnet"), ("r160_in1k", "test_resnet.r160_in1k")]
)
def test_weights_of_timm_are_asked_for(weights, name, monkeypatch):
    asked = []
    monkeypatch.setattr(smp.encoders, "TimmUniversalEncoder", lambda **given: asked.append(given) or _stop())
    with pytest.raises(PruningError, match="stopped"):
        build_network("unet", encoder="tu-test_resnet", encoder_weights=weights, in_channels=3, classes=1)
    assert asked[0]["name"] == name
    assert asked[0]["pretrained"] is True


def _stop():
    raise ValueError("stopped")


def test_weights_that_cannot_be_fetched(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", refuse)
    with pytest.raises(
        PruningError, match=r"'imagenet'.*'resnet18' could not be fetched: no route.*encoder_weights=None"
    ):
        build_network("unet", encoder="resnet18", encoder_weights="imagenet", in_channels=3, classes=1)


@pytest.mark.parametrize("arch", ["unet", "linknet", "fpn", "deeplabv3plus", "pan", "segformer"])
def test_the_sizes_that_are_named_are_those_that_work(arch):
    """Multiples of the step give an output of the input's size; smp refuses what we refuse."""
    network = build_network(arch, encoder=TINY, encoder_weights=None, in_channels=3, classes=1).eval()
    step = size_step(network)
    size = (128, 128 + step)  # PAN pools its features thrice more, whatever the step
    assert network(torch.zeros(1, 3, *size)).shape[-2:] == size
    if step > 1:
        with pytest.raises(RuntimeError, match=f"divisible by {step}"):
            network(torch.zeros(1, 3, 3 * step - 1, 2 * step))


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((100, 128), "96 x 128 or 128 x 128"),
        ((5, 33), "32 x 32 or 32 x 64"),
        ((31, 64), "32 x 64 or 32 x 64"),
    ],
)
def test_names_the_nearest_sizes(size, nearest):
    with pytest.raises(
        PruningError, match=f"multiples of 32 pixels, not {size[0]} x {size[1]}. Nearest: {nearest}"
    ):
        check_image_size(*size, step=32)


def test_no_rule_for_a_module_of_the_user():
    assert size_step(nn.Conv2d(3, 1, 1)) == 1
    check_image_size(7, 9, step=1)
