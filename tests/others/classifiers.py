"""Classifiers of timm, one of each family: networks that nobody wrote for this project."""

import timm
import torch
from torch import nn

CLASSIFIERS = (
    "resnet18",
    "resnext26ts",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "tf_efficientnetv2_b0",
    "regnety_002",
    "convnext_atto",
    "convnextv2_atto",
    "mobilenetv4_conv_small_035",
    "repvit_m0_9",
    "fastvit_t8",
    "ghostnetv2_100",
    "poolformer_s12",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientvit_b0",
    "maxvit_pico_rw_256",
    "pvt_v2_b0",
    "xcit_nano_12_p16_224",
    "cait_xxs24_224",
    "densenet121",
    "dla34",
    "res2net50_14w_8s",
    "resnest14d",
    "skresnet18",
    "seresnet18",
    "hrnet_w18_small",
    "selecsls42b",
    "vovnet39a",
    "cspresnet50",
    "mixnet_s",
    "mnasnet_small",
    "tinynet_e",
    "lcnet_050",
    "hardcorenas_a",
    "hgnetv2_b0",
    "xception41",
    "dpn68",
    "nf_regnet_b0",
    "dm_nfnet_f0",
    "rexnet_100",
    "repghostnet_050",
    "mambaout_femto",
    "starnet_s1",
    "inception_next_atto",
)
"""Names of networks that run at 64 pixels and are small enough to be cut on a laptop."""

SAMPLE = (
    "resnext26ts",
    "mobilenetv3_small_050",
    "convnextv2_atto",
    "vit_tiny_patch16_224",
    "mobilevit_xxs",
    "tinynet_e",
)
"""A few of them, for every run of the tests."""


def classifier(name: str) -> nn.Module:
    """The network for images of 64 pixels, as after training: no two channels alike, none dead."""
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, num_classes=5, img_size=64)
    except TypeError:  # one that takes any size
        model = timm.create_model(name, num_classes=5)
    return lively_(model)


def lively_(model: nn.Module) -> nn.Module:
    """Makes norms and biases of `model` differ by channel, and what starts at zero matter; eval mode."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_floating_point():
            continue
        noise = torch.rand(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.data = 0.5 + noise
        elif tensor.ndim <= 1 or not tensor.any():
            tensor.data = tensor + 0.4 * (noise - 0.5)
    return model.eval()
