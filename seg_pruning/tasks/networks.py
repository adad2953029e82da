"""Networks by name, from segmentation_models_pytorch, and the image sizes that they take."""

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.base import SegmentationModel
from torch import nn

from seg_pruning.surgery.errors import PruningError

from .names import check_name

MODULE_MARK = "module:"
"""Begins the hyperparameter `arch` of a task that was given a module: no file of plain types can hold one."""


def build_network(
    arch: str, *, encoder: str, encoder_weights: str | None, in_channels: int, classes: int
) -> SegmentationModel:
    """Gives a network whose names were all checked before anything was built.

    Args:
        arch: Architecture, such as ``"unet"`` or ``"deeplabv3plus"``.
        encoder: Encoder, such as ``"resnet18"``, or ``"tu-<name>"`` for a backbone of timm.
        encoder_weights: Name of pretrained weights, or ``None`` for random ones. A backbone of timm takes
            ``"imagenet"`` (timm's default for it) or one of its own tags, such as ``"a1_in1k"``.
        in_channels: Channels of the image.
        classes: Channels of the output.

    Raises:
        PruningError: For a name that does not exist, for a pair that does not fit, and for weights that
            cannot be fetched.
    """
    check_network_names(arch, encoder, encoder_weights)
    name, weights = _smp_encoder(encoder, encoder_weights)
    try:
        network: SegmentationModel = smp.create_model(
            arch, name, weights, in_channels=in_channels, classes=classes
        )
    except OSError as error:
        raise PruningError(
            f"The weights {encoder_weights!r} of the encoder {encoder!r} could not be fetched: {error}. "
            "Connect once to fill the cache of huggingface_hub, or train from random weights with "
            "encoder_weights=None."
        ) from error
    except (ValueError, RuntimeError, NotImplementedError, TypeError) as error:
        raise PruningError(
            f"The architecture {arch!r} cannot be built with the encoder {encoder!r}: {error}. "
            "Choose another of the two."
        ) from error
    return network


def check_network_names(arch: str, encoder: str, encoder_weights: str | None) -> None:
    """Passes when the architecture, the encoder and its weights exist; builds and fetches nothing.

    Raises:
        PruningError: For the first name that does not exist, with the nearest ones.
    """
    if arch.startswith(MODULE_MARK):
        raise PruningError(
            f"The network of this checkpoint was given as a module ({arch.removeprefix(MODULE_MARK)}), "
            "which a file of plain types cannot hold. Build it again and hand it over: "
            "load_from_checkpoint(path, arch=<the module>)."
        )
    check_name(
        arch.lower(),
        smp.MODEL_ARCHITECTURES_MAPPING.keys(),
        what="architecture",
        listing="smp.MODEL_ARCHITECTURES_MAPPING",
    )
    check_name(
        encoder.partition(".")[0] if encoder.startswith("tu-") else encoder,
        [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())],
        what="encoder",
        listing="smp.encoders.get_encoder_names() lists smp's, timm.list_models() what can follow 'tu-'",
    )
    tag = encoder.partition(".")[2] if encoder.startswith("tu-") else ""
    for weights in filter(None, (tag, encoder_weights)):
        check_name(
            weights,
            encoder_weight_names(encoder),
            what=f"set of weights for the encoder {encoder!r}",
            listing="",
        )


def encoder_weight_names(encoder: str) -> tuple[str, ...]:
    """Gives the names of an encoder's pretrained weights; for timm ``"imagenet"`` means its default."""
    if not encoder.startswith("tu-"):
        return tuple(smp.encoders.encoders[encoder]["pretrained_settings"])
    base, _, tag = encoder.removeprefix("tu-").partition(".")
    tags = [name.partition(".")[2] for name in timm.list_models(f"{base}.*", pretrained=True)]
    legal = [tag] if tag in tags else tags  # a name with its tag leaves no other choice
    return ("imagenet", *legal) if tags else ()


def size_step(network: nn.Module) -> int:
    """Gives the pixels of which height and width must be multiples; 1 where no rule is known."""
    if isinstance(network, SegmentationModel) and network.requires_divisible_input_shape:
        return int(network.encoder.output_stride)
    return 1


def check_image_size(height: int, width: int, *, step: int) -> None:
    """Passes when both sizes are multiples of `step` pixels.

    Raises:
        PruningError: If one is not; names the nearest sizes that are.

    Example:
        >>> check_image_size(100, 128, step=32)
        Traceback (most recent call last):
        seg_pruning.surgery.errors.PruningError: The network takes images ... not 100 x 128. Nearest: 96 x 128
        or 128 x 128...
    """
    if height % step == 0 and width % step == 0:
        return
    below = [max(size // step, 1) * step for size in (height, width)]
    above = [-(-size // step) * step for size in (height, width)]
    raise PruningError(
        f"The network takes images whose height and width are multiples of {step} pixels, "
        f"not {height} x {width}. Nearest: {below[0]} x {below[1]} or {above[0]} x {above[1]}. "
        "Set the image size of the data to one of them."
    )


def _smp_encoder(encoder: str, weights: str | None) -> tuple[str, str | bool | None]:
    """Spells timm's weights as smp wants them: the tag in the name, and True."""
    if weights is None or not encoder.startswith("tu-"):
        return encoder, weights
    tagged = encoder if weights == "imagenet" or "." in encoder else f"{encoder}.{weights}"
    return tagged, True
