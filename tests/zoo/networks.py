"""Which networks are in the zoo, and how one is built, with values that no mistake can hide behind."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

DECODERS = (
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
)

# A small encoder of each native family of smp, and of each timm family.
NATIVE_CNN = (
    "resnet18",
    "resnext50_32x4d",
    "dpn68",
    "vgg11_bn",
    "se_resnet50",
    "densenet121",
    "inceptionresnetv2",
    "inceptionv4",
    "efficientnet-b0",
    "mobilenet_v2",
    "xception",
    "timm-skresnet18",
    "mobileone_s0",
)
NATIVE = (*NATIVE_CNN, "mit_b0")
TIMM_CNN = (
    "tu-convnext_atto",
    "tu-convnextv2_atto",
    "tu-mobilenetv3_small_100",
    "tu-mobilenetv4_conv_small",
    "tu-regnety_002",
    "tu-regnetx_002",
    "tu-hrnet_w18_small",
    "tu-resnest14d",
    "tu-res2net50_26w_4s",
    "tu-ghostnet_100",
    "tu-ghostnetv2_100",
    "tu-eca_nfnet_l0",
    "tu-nf_regnet_b0",
    "tu-mambaout_femto",
    "tu-repvit_m0_9",
    "tu-hgnetv2_b0",
    "tu-cspresnet50",
    "tu-cspdarknet53",
    "tu-cs3darknet_s",
    "tu-selecsls42",
    "tu-tinynet_e",
    "tu-poolformer_s12",
    "tu-dla34",
    "tu-rexnet_100",
    "tu-ese_vovnet19b_dw",
    "tu-gernet_s",
    "tu-repvgg_a0",
    "tu-inception_next_atto",
    "tu-starnet_s1",
    "tu-hardcorenas_a",
    "tu-skresnet18",
    "tu-tresnet_m",
    "tu-lcnet_050",
    "tu-mnasnet_small",
    "tu-fbnetc_100",
    "tu-tf_efficientnetv2_b0",
    "tu-mixnet_s",
    "tu-rdnet_tiny",
    "tu-gcresnet33ts",
    "tu-resnetv2_18",
    "tu-xception41",
    "tu-pnasnet5large",
    "tu-fastvit_t8",
    "tu-focalnet_tiny_srf",
)
TIMM_ATTENTION = (
    "tu-swin_tiny_patch4_window7_224",
    "tu-swinv2_tiny_window8_256",
    "tu-swinv2_cr_tiny_224",
    "tu-maxvit_rmlp_pico_rw_256",
    "tu-coatnet_nano_rw_224",
    "tu-coat_tiny",
    "tu-pvt_v2_b0",
    "tu-efficientvit_b0",
    "tu-mobilevit_xxs",
    "tu-mobilevitv2_050",
    "tu-edgenext_xx_small",
    "tu-mobilenetv4_hybrid_medium",
    "tu-efficientformer_l1",
    "tu-efficientformerv2_s0",
    "tu-davit_tiny",
    "tu-gcvit_xxtiny",
    "tu-hiera_tiny_224",
    "tu-mvitv2_tiny",
    "tu-twins_pcpvt_small",
    "tu-swiftformer_xs",
    "tu-lambda_resnet26t",
    "tu-halonet26t",
    "tu-botnet26t_256",
    "tu-bat_resnext26ts",
    "tu-nextvit_small",
    "tu-tiny_vit_5m_224",
)
TIMM_PLAIN_VIT = (  # one stride throughout: only dpt takes them
    "tu-vit_tiny_patch16_224",
    "tu-deit_tiny_patch16_224",
    "tu-deit3_small_patch16_224",
    "tu-beit_base_patch16_224",
    "tu-eva02_tiny_patch14_224",
    "tu-flexivit_small",
    "tu-vit_small_patch14_dinov2",
)
TIMM = (*TIMM_CNN, *TIMM_ATTENTION, *TIMM_PLAIN_VIT)
ENCODERS = (*NATIVE, *TIMM)
# Efficient channel attention slides a kernel along the channels: what feeds it stays. It is not plain.
PLAIN_CNN = frozenset((*NATIVE_CNN, *TIMM_CNN)) - {"tu-eca_nfnet_l0"}
SIDES = (64, 128, 224, 256, 384)

VARIANTS: dict[str, dict[str, Any]] = {
    "": {"classes": 3},
    "scse": {"classes": 3, "decoder_attention_type": "scse"},
    "aux head": {"classes": 3, "aux_params": {"classes": 4, "dropout": 0.1}},
    "1 class, 1 band": {"classes": 1, "in_channels": 1},
    "5 classes, 4 bands": {"classes": 5, "in_channels": 4},
}
SMALL: dict[str, dict[str, Any]] = {  # fewer blocks, channels and pixels, but each kind of block and of join
    "dpt": {"decoder_intermediate_channels": (16, 24, 32, 40), "decoder_fusion_channels": 24},
    "upernet": {"decoder_channels": 64},
    "tu-vit_tiny_patch16_224": {"img_size": 64},
    "tu-swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "window_size": 2,
        "embed_dim": 48,
        "depths": (2, 2, 2, 2),
    },
    "tu-davit_tiny": {"depths": (1, 1, 1, 1), "embed_dims": (24, 48, 96, 192)},
    "tu-coatnet_nano_rw_224": {"img_size": 64, "depths": (1, 1, 1, 1)},
    "tu-efficientformer_l1": {"depths": (1, 1, 1, 2), "embed_dims": (16, 24, 48, 64)},
    "tu-efficientformerv2_s0": {"img_size": 64, "depths": (1, 1, 2, 2)},
    "tu-tiny_vit_5m_224": {"depths": (1, 2, 2, 1), "embed_dims": (16, 32, 40, 80)},
    "tu-res2net50_26w_4s": {"layers": (2, 2, 1, 1)},
    "tu-fastvit_t8": {"layers": (1, 1, 1, 1)},
    "tu-rexnet_100": {"width_mult": 0.5},
    "tu-repvit_m0_9": {"embed_dim": (16, 24, 32, 48)},
    "tu-resnest14d": {"base_width": 16, "stem_width": 8},
    "tu-resnetv2_18": {"channels": (32, 48, 64, 96)},
    "tu-pvt_v2_b0": {"depths": (1, 1, 1, 1)},
    "tu-starnet_s1": {"depths": (1, 1, 2, 1)},
    "tu-mambaout_femto": {"depths": (1, 1, 2, 1)},
    "tu-swiftformer_xs": {"layers": (2, 1, 1, 2)},
    "tu-inception_next_atto": {"depths": (1, 1, 1, 1)},
}
VARIED = ("resnet18", "efficientnet-b0", "mit_b0", "tu-convnext_atto")


@dataclass(frozen=True)
class Case:
    """One network of the zoo.

    Attributes:
        decoder: name that `smp.create_model` knows.
        encoder: name that `smp.create_model` knows.
        variant: a key of `VARIANTS`, or "small", which makes what `SMALL` names smaller.
    """

    decoder: str
    encoder: str
    variant: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """What `smp.create_model` is given beside the names."""
        if self.variant != "small":
            return VARIANTS[self.variant]
        return VARIANTS[""] | SMALL.get(self.decoder, {}) | SMALL.get(self.encoder, {})

    @property
    def bands(self) -> int:
        """Channels of its images."""
        return int(self.options.get("in_channels", 3))

    def __str__(self) -> str:
        return " ".join(filter(None, (self.decoder, self.encoder, self.variant)))


class RefusalError(Exception):
    """smp itself cannot build or run a pair."""


@dataclass(frozen=True)
class Network:
    """A network of the zoo, ready to be traced."""

    model: nn.Module = field(repr=False)
    images: Tensor = field(repr=False)


def cases() -> list[Case]:
    """The zoo, in its order: all pairs, then the variants of a few."""
    pairs = [Case(decoder, encoder) for encoder in ENCODERS for decoder in DECODERS]
    kinds = [variant for variant in VARIANTS if variant]
    decoders = {kind: DECODERS[:2] if kind == "scse" else DECODERS[:-1] for kind in kinds}
    return pairs + [Case(d, encoder, kind) for kind in kinds for encoder in VARIED for d in decoders[kind]]


def build(case: Case, *, side: int | None = None) -> Network:
    """The network with values of its own, in eval mode, and an image of the least working size.

    Args:
        case: which.
        side: height and width of the images; by default the first of `SIDES` that smp can run.

    Raises:
        RefusalError: smp cannot; the message is its own.
    """
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # smp's advice on the readout of dpt
            model = smp.create_model(case.decoder, case.encoder, encoder_weights=None, **case.options)
    except Exception as error:
        raise RefusalError(f"{type(error).__name__}: {error}") from None
    set_values_(model.eval())
    network = _running(model, case, SIDES if side is None else (side,))
    fit_batch_norms_(model, network.images)
    return network


def _running(model: nn.Module, case: Case, sides: tuple[int, ...]) -> Network:
    refusal = ""
    for pixels in sides:
        images = torch.randn(1, case.bands, pixels, pixels, generator=torch.Generator().manual_seed(1))
        try:
            with torch.no_grad():
                model(images)
        except Exception as error:
            refusal = f"{type(error).__name__}: {error}"
        else:
            return Network(model, images)
    raise RefusalError(refusal)


def set_values_(model: nn.Module) -> None:
    """Random values as after training: no two channels alike, none dying out, no zero that hides a branch."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.numel() > 1:
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.data = _value(name.rpartition(".")[2], noise).to(tensor.dtype)


def fit_batch_norms_(model: nn.Module, images: Tensor) -> None:
    """Gives each BatchNorm statistics near those of what it is given, else deep products grow without end."""
    generator = torch.Generator().manual_seed(2)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(torch.cat((images, torch.randn(images.shape, generator=generator))))
    for norm in norms:
        norm.eval().momentum = 0.1
        if norm.running_mean is not None and norm.running_var is not None:
            noise = torch.rand(2, norm.num_features, generator=generator)
            variance = norm.running_var.clamp(min=0.1 * float(norm.running_var.mean()))
            norm.running_mean += (noise[0] - 0.5) * variance.sqrt()
            norm.running_var.copy_(variance * (0.5 + noise[1]))


def _value(name: str, noise: Tensor) -> Tensor:
    """`noise`, uniform in [0, 1), at the scale of what is called `name`."""
    if name in {"bias", "running_mean"}:
        return noise - 0.5
    if noise.numel() == max(noise.shape):  # scales of norms, of layers, of heads; variances
        return 0.5 + noise
    reach = math.sqrt(6 / noise[0].numel())  # He et al. 2015: what passes through keeps its magnitude
    return 2 * (noise - 0.5) * max(reach, 0.0 if name == "weight" else 0.1)
