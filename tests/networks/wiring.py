"""Networks whose ops couple channels: joins, blocks, gates, norms, splits, heads."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.networks.net import Net, conv


class Chain(Net):
    """Convolution, BatchNorm, convolution: filters leave with the norm and with what reads them."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = conv(3, 10, bias=False), nn.BatchNorm2d(10)
        self.head = conv(10, 2)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.stem(x))))


class Residual(Net):
    """An addition: both terms lose the same channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.head = conv(3, 10), conv(10, 7), conv(7, 10), conv(10, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(x + self.outer(F.relu(self.inner(x)))))


class Concat(Net):
    """Parts of unequal width, laid end to end: each keeps its own channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 7), conv(3, 10), conv(20, 2)

    def forward(self, x):
        return self.head(torch.cat([self.a(x), x, self.b(x)], 1))


class ConcatWithItself(Net):
    """One tensor twice: both copies of a channel leave together."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 7), conv(14, 2)

    def forward(self, x):
        x = torch.sigmoid(self.stem(x))
        return self.head(torch.cat([x, x], 1))


class Depthwise(Net):
    """One filter for each channel, then two for each: `groups` follows."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = conv(3, 10), conv(10, 10, groups=10)
        self.two, self.head = conv(10, 20, groups=10), conv(20, 2)

    def forward(self, x):
        return self.head(torch.sigmoid(self.two(F.relu(self.one(self.stem(x))))))


class Grouped(Net):
    """A grouped convolution: each group keeps as many channels as every other, which ones may differ."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped, self.head = conv(3, 12), conv(12, 18, groups=3), conv(18, 2)

    def forward(self, x):
        return self.head(torch.sigmoid(self.grouped(torch.sigmoid(self.stem(x)))))


class Paths(Net):
    """Groups that whole rows of layers share: their number may fall, in all of them alike."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.paths = conv(3, 12), nn.GroupNorm(3, 12), conv(12, 18, groups=3)
        self.up, self.head = nn.ConvTranspose2d(18, 9, 2, stride=2, groups=3), conv(9, 2)

    def forward(self, x):
        x = torch.sigmoid(self.paths(torch.sigmoid(self.norm(self.stem(x)))))
        return self.head(torch.sigmoid(self.up(x)))


class Transposed(Net):
    """A transposed convolution has its channels in the other order."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.head = conv(3, 7), nn.ConvTranspose2d(7, 10, 2, stride=2), conv(10, 2)

    def forward(self, x):
        return self.head(F.relu(self.up(F.relu(self.stem(x)))))


class GroupedTransposed(Net):
    """A transposed convolution in groups, and a depthwise one."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = conv(3, 12), nn.ConvTranspose2d(12, 18, 2, stride=2, groups=3)
        self.wide, self.head = nn.ConvTranspose2d(18, 18, 3, groups=18), conv(18, 2)

    def forward(self, x):
        return self.head(F.relu(self.wide(F.relu(self.up(F.relu(self.stem(x)))))))


class SqueezeExcite(Net):
    """A gate for each channel, computed from all of them."""

    def __init__(self):
        super().__init__()
        self.stem, self.squeeze, self.excite, self.head = (
            conv(3, 12),
            conv(12, 5, 1),
            conv(5, 12, 1),
            conv(12, 2),
        )

    def forward(self, x):
        x = self.stem(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(x * gate)


class SpatialGate(Net):
    """scSE: a gate of one channel broadcasts and ties nothing."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.head = conv(3, 10), conv(10, 1, 1), conv(10, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x * torch.sigmoid(self.gate(x)))


class MeanGate(Net):
    """CBAM: mean and maximum over the channels; both are over those that are kept."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.head = conv(3, 10), conv(2, 1), conv(10, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(x * torch.sigmoid(self.gate(seen)))


class GroupNorm(Net):
    """Statistics over groups of channels: groups shrink alike."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 12), nn.GroupNorm(3, 12), conv(12, 2)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.stem(x))))


class InstanceNorm(Net):
    """Each channel of each image by itself, with affine parameters."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 10), nn.InstanceNorm2d(10, affine=True), conv(10, 2)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.stem(x))))


class LayerNorm(Net):
    """Channels last, normalised over them; `normalized_shape` follows."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 10), nn.LayerNorm(10), nn.Linear(10, 2)

    def forward(self, x):
        return self.head(F.gelu(self.norm(self.stem(x).permute(0, 2, 3, 1))))


class Flatten(Net):
    """A channel of a map is many columns of the linear layer behind it."""

    shape = (2, 3, 4, 4)

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = conv(3, 7), nn.Linear(7 * 16, 11), nn.Linear(11, 2)

    def forward(self, x):
        return self.head(F.relu(self.hidden(torch.sigmoid(self.stem(x)).flatten(1))))


class Chunk(Net):
    """Halves of one convolution, one of them a gate: `a * sigmoid(b)` ties them pair by pair."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 14), conv(7, 2)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, dim=1)
        return self.head(a * torch.sigmoid(b))


class Halves(Net):
    """Halves that go different ways keep equal numbers; which ones may differ."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right, self.head = conv(3, 14), conv(7, 5), conv(7, 6), conv(11, 2)

    def forward(self, x):
        a, b = torch.sigmoid(self.stem(x)).chunk(2, dim=1)
        return self.head(torch.cat([self.left(a), self.right(b)], 1))


class UnevenSplit(Net):
    """Parts whose lengths are attributes: the attributes are rewritten."""

    def __init__(self):
        super().__init__()
        self.lengths = [5, 9]
        self.stem, self.left, self.right, self.head = conv(3, 14), conv(5, 4), conv(9, 6), conv(10, 2)

    def forward(self, x):
        a, b = torch.split(torch.sigmoid(self.stem(x)), self.lengths, dim=1)
        return self.head(torch.cat([self.left(a), self.right(b)], 1))


class ChannelShuffle(Net):
    """ShuffleNet: channels change places between groups."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped, self.head = conv(3, 12), conv(12, 12, groups=3), conv(12, 2)

    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.sigmoid(self.grouped(x)))


class PixelShuffle(Net):
    """Four channels become one of twice the size, then one becomes four again."""

    def __init__(self):
        super().__init__()
        self.stem, self.mid, self.head = conv(3, 20), conv(5, 7), conv(28, 2)

    def forward(self, x):
        x = self.mid(F.relu(F.pixel_shuffle(self.stem(x), 2)))
        return self.head(F.pixel_unshuffle(F.relu(x), 2))


class Attention(Net):
    """Attention by hand: heads and their width are attributes."""

    shape = (2, 5, 12)

    def __init__(self):
        super().__init__()
        self.heads, self.width = 3, 4
        self.q, self.k, self.v = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = (
            layer(x).view(n, length, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        weights = (q @ k.transpose(-2, -1) / math.sqrt(self.width)).softmax(-1)
        return self.head((weights @ v).transpose(1, 2).reshape(n, length, -1))


class FusedAttention(Attention):
    """Attention by torch's fused kernel."""

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = (
            layer(x).view(n, length, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        return self.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, -1))
