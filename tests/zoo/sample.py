"""The part of the zoo that `make test` has: one cheap member of each family, and each decoder."""

from timm.models import model_entrypoint

from tests.zoo.networks import ENCODERS, SMALL, VARIANTS, Case

SAMPLE = {
    "unet": ("mit_b0", "tu-convnext_atto", "tu-hardcorenas_a", "tu-resnetv2_18"),
    "unetplusplus": ("tu-mobilenetv3_small_100",),
    "manet": ("efficientnet-b0",),
    "linknet": ("tu-regnety_002", "tu-cs3darknet_s"),
    "fpn": ("tu-ghostnet_100", "tu-mobilevitv2_050", "tu-edgenext_xx_small"),
    "pspnet": (  # as cheap, since it reads three stages: for encoders whose stages are alike
        *("vgg11_bn", "se_resnet50", "resnext50_32x4d", "mobileone_s0", "timm-skresnet18"),
        *("tu-selecsls42", "tu-focalnet_tiny_srf"),
    ),
    "deeplabv3": ("tu-tinynet_e",),
    "deeplabv3plus": ("mobilenet_v2",),
    "pan": ("resnet18",),
    "upernet": ("tu-efficientvit_b0",),
    "segformer": (  # the cheapest decoder, for the dearest encoders
        *("dpn68", "densenet121", "inceptionresnetv2", "inceptionv4", "xception"),
        *("tu-hrnet_w18_small", "tu-resnest14d", "tu-res2net50_26w_4s", "tu-nf_regnet_b0", "tu-dla46_c"),
        *("tu-mambaout_femto", "tu-repvit_m0_9", "tu-hgnetv2_b0", "tu-poolformer_s12", "tu-rexnet_100"),
        *("tu-ese_vovnet19b_dw", "tu-gernet_s", "tu-inception_next_atto", "tu-starnet_s1", "tu-fastvit_t8"),
        *("tu-swin_tiny_patch4_window7_224", "tu-pvt_v2_b0", "tu-efficientformer_l1", "tu-swiftformer_xs"),
        *("tu-efficientformerv2_s0", "tu-tiny_vit_5m_224", "tu-coatnet_nano_rw_224"),
        "tu-davit_tiny",
    ),
    "dpt": ("tu-vit_tiny_patch16_224",),
}
SLOW = frozenset(  # families that only `make zoo` has: most take seconds, and the sample has to stay short
    (
        *("beit", "byoanet", "coat", "deit", "eva", "gcvit", "hiera", "mvitv2", "nextvit"),
        *("pnasnet", "rdnet", "sknet", "swin_transformer_v2", "swin_transformer_v2_cr", "tresnet", "twins"),
        "xception_aligned",
    )
)


def sample() -> list[Case]:
    """One cheap member of each family that has one, each decoder, and each variant once."""
    pairs = [(decoder, encoder) for decoder, encoders in SAMPLE.items() for encoder in encoders]
    cases = [Case(d, e, "small" if d in SMALL or e in SMALL else "") for d, e in pairs]
    return cases + [Case("unet", "tu-lcnet_050", variant) for variant in VARIANTS if variant]


def family(encoder: str) -> str:
    """What stands for the architecture: the module of timm that defines it, or the name that smp gives it.

    >>> family("tu-regnety_002"), family("resnet18")
    ('regnet', 'resnet18')
    """
    name = encoder.removeprefix("tu-")
    return name if name == encoder else model_entrypoint(name).__module__.rpartition(".")[2]


def families() -> set[str]:
    """Those of the whole zoo."""
    return {family(encoder) for encoder in ENCODERS}
