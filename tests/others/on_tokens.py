"""A block over tokens between a convolution and a map, as in most transformers."""

from torch import nn

from tests.others.cases import case


class OnTokens(nn.Module):
    """Patches, a block over `(N, L, C)`, and a map again."""

    def __init__(self, block, dim=16):
        super().__init__()
        self.patch, self.block, self.norm = nn.Conv2d(3, dim, 4, 4), block, nn.LayerNorm(dim)
        self.head = nn.ConvTranspose2d(dim, 2, 4, 4)

    def forward(self, x):
        x = self.patch(x)
        n, _, h, w = x.shape
        x = self.norm(self.block(x.flatten(2).transpose(1, 2)))
        return self.head(x.transpose(1, 2).reshape(n, -1, h, w))


def on_tokens(name, make, *pinned):
    """Registers a network around the block that `make` gives; `pinned` as in `Case`."""

    class Net(OnTokens):
        def __init__(self):
            super().__init__(make())

    Net.__name__ = name
    return case(1, 3, 16, 16, other=(2, 3, 16, 24), pinned=pinned)(Net)
