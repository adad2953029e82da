"""Small networks, each of which shows one kind of coupling between channels.

Each ends in a head whose outputs are pinned, and has widths that no other axis has, so that a mix-up of
axes cannot hide.
"""

from tests.networks import modules, wiring
from tests.networks.modules import KeywordInput, PReLU
from tests.networks.net import Net, conv
from tests.networks.wiring import (
    Chain,
    ChannelShuffle,
    Concat,
    Grouped,
    GroupNorm,
    MeanGate,
    Paths,
    PixelShuffle,
    Residual,
)

__all__ = (
    "NETWORKS",
    "Chain",
    "ChannelShuffle",
    "Concat",
    "GroupNorm",
    "Grouped",
    "KeywordInput",
    "MeanGate",
    "Net",
    "PReLU",
    "Paths",
    "PixelShuffle",
    "Residual",
    "conv",
)

NETWORKS: dict[str, type[Net]] = {
    name: kind
    for place in (wiring, modules)
    for name, kind in vars(place).items()
    if isinstance(kind, type) and issubclass(kind, Net) and kind is not Net
}
