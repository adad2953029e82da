"""Small networks, each of which shows one kind of coupling between channels.

Each ends in a head whose outputs are pinned, and has widths that no other axis has, so that a mix-up of
axes cannot hide.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations


def conv(read: int, made: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    """A convolution that keeps the spatial size."""
    return nn.Conv2d(read, made, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """Takes an image; subclasses say how channels are coupled."""

    shape = (2, 3, 8, 8)

    @classmethod
    def example(cls) -> object:
        """An input, the same each time."""
        return torch.randn(cls.shape, generator=torch.Generator().manual_seed(0))


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


class SharedModule(Net):
    """One module called twice: what it makes is what it reads."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared, self.head = conv(3, 10), conv(10, 10), conv(10, 2)

    def forward(self, x):
        return self.head(F.relu(self.shared(F.relu(self.shared(F.relu(self.stem(x)))))))


class TiedWeights(Net):
    """One parameter in two layers."""

    shape = (4, 6)

    def __init__(self):
        super().__init__()
        self.stem, self.code = nn.Linear(6, 9), nn.Linear(9, 5)
        self.decode, self.head = nn.Linear(5, 9), nn.Linear(9, 2)
        self.again = nn.Linear(9, 5, bias=False)
        self.again.weight = self.code.weight

    def forward(self, x):
        x = F.relu(self.code(F.relu(self.stem(x))))
        return self.head(F.relu(self.decode(x + self.again(F.relu(self.decode(x))))))


class DeadBranch(Net):
    """A module that never runs."""

    def __init__(self):
        super().__init__()
        self.stem, self.unused, self.head = (
            conv(3, 10),
            nn.Sequential(conv(10, 6), nn.BatchNorm2d(6)),
            conv(10, 2),
        )

    def forward(self, x):
        return self.head(F.relu(self.stem(x)))


class Auxiliary(Net):
    """A head that runs in training only: it reads channels that may leave."""

    def __init__(self):
        super().__init__()
        self.stem, self.aux, self.head = conv(3, 10), conv(10, 2), conv(10, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return {"out": self.head(x), "aux": self.aux(x)} if self.training else {"out": self.head(x)}


class LiteralSize(Net):
    """A number in the code where a width stands: nothing can leave."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 12), nn.Conv1d(12, 2, 1)

    def forward(self, x):
        return self.head(F.relu(self.stem(x)).reshape(-1, 12, 64))


class AttributeSize(Net):
    """The same, read from an attribute, which is rewritten."""

    def __init__(self):
        super().__init__()
        self.width = 12
        self.stem, self.head = conv(3, 12), nn.Conv1d(12, 2, 1)

    def forward(self, x):
        return self.head(F.relu(self.stem(x)).reshape(-1, self.width, 64))


class DictOutput(Net):
    """A dict, and a tuple in it; features that reach the output are pinned."""

    def __init__(self):
        super().__init__()
        self.stem, self.mid, self.head = conv(3, 10), conv(10, 7), conv(7, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = F.relu(self.mid(x))
        return {"out": self.head(y), "features": (y.mean((2, 3)), None)}


class KeywordInput(Net):
    """Two inputs by keyword."""

    def __init__(self):
        super().__init__()
        self.image, self.hint, self.head = conv(3, 10), conv(1, 10), conv(10, 2)

    @classmethod
    def example(cls):
        return {"x": super().example(), "hint": torch.linspace(0, 1, 128).view(2, 1, 8, 8)}

    def forward(self, *, x, hint):
        return self.head(F.relu(self.image(x) + self.hint(hint)))


class WeightNorm(Net):
    """The weight is computed from two parameters."""

    def __init__(self):
        super().__init__()
        self.stem = parametrizations.weight_norm(conv(3, 10))
        self.mid = parametrizations.weight_norm(conv(10, 7))
        self.head = conv(7, 2)

    def forward(self, x):
        return self.head(F.relu(self.mid(F.relu(self.stem(x)))))


class PReLU(Net):
    """One slope for each channel."""

    def __init__(self):
        super().__init__()
        self.stem, self.act, self.head = conv(3, 10), nn.PReLU(10), conv(10, 2)

    def forward(self, x):
        return self.head(self.act(self.stem(x)))


class Plain(Net):
    """No biases, and a BatchNorm without affine parameters."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = conv(3, 10, bias=False), nn.BatchNorm2d(10, affine=False)
        self.head = conv(10, 2, bias=False)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.stem(x))))


class OwnParameters(Net):
    """Parameters and buffers outside torch.nn's layers, one of them over two axes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 3) / 2)
        self.scale = nn.Parameter(torch.rand(10, 1, 1) + 0.5)
        self.register_buffer("offset", torch.randn(1, 10, 1, 1))
        self.head = conv(10, 2)

    def forward(self, x):
        return self.head(F.relu(torch.einsum("oi,nihw->nohw", self.weight, x) * self.scale + self.offset))


class Lookup(Net):
    """Rows of a table are read by their number, its columns are channels."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(13, 10), nn.Linear(10, 2)

    @classmethod
    def example(cls):
        return torch.arange(12).view(2, 6)

    def forward(self, x):
        return self.head(F.relu(self.table(x)))


class PartlyFixed(Net):
    """Channels of one layer that meet the input image stay, the others may leave."""

    def __init__(self):
        super().__init__()
        self.first, self.rest = 3, 7
        self.stem, self.head = conv(3, 10), conv(10, 2)

    def forward(self, x):
        a, b = torch.split(self.stem(x), [self.first, self.rest], dim=1)
        return self.head(F.relu(torch.cat([a + x, b], 1)))


class Upsample(Net):
    """Pooling, interpolation and padding pass channels through."""

    def __init__(self):
        super().__init__()
        self.stem, self.mid, self.head = conv(3, 10), conv(10, 7), conv(17, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = F.interpolate(self.mid(F.pad(F.max_pool2d(x, 2), (1, 1, 1, 1))), x.shape[2:], mode="bilinear")
        return self.head(torch.cat([x, F.avg_pool2d(F.relu(y), 3, 1, 1)], 1))


NETWORKS: dict[str, type[Net]] = {
    name: kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, Net) and kind is not Net
}
