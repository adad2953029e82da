"""Channels that are moved about, shared or padded by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.cases import case, conv


@case(1, 3, 16, 16, other=(2, 3, 8, 8))
class PixelShuffleByHand(nn.Module):
    def __init__(self, r=2):
        super().__init__()
        self.r = r
        self.body, self.up, self.head = conv(3, 10), nn.Conv2d(10, 7 * r * r, 1), nn.Conv2d(7, 2, 1)

    def forward(self, x):
        x = self.up(self.body(x))
        b, c, h, w = x.shape
        r = self.r
        x = x.reshape(b, c // (r * r), r, r, h, w).permute(0, 1, 4, 2, 5, 3)
        return self.head(x.reshape(b, c // (r * r), h * r, w * r))


@case(1, 3, 16, 16, other=(2, 3, 8, 8))
class PixelShuffleModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.up = conv(3, 10), nn.Conv2d(10, 6 * 4, 3, padding=1)
        self.down, self.head = nn.PixelUnshuffle(2), nn.Conv2d(24 + 10, 2, 1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x):
        x = self.body(x)
        return self.head(torch.cat([self.down(torch.relu(self.shuffle(self.up(x)))), x], 1))


@case(1, 3, 16, 16, other=(2, 3, 8, 8))
class SubPixelLast(nn.Module):
    """DUC: the classes' pixel shuffle reaches the output; the body shrinks."""

    def __init__(self):
        super().__init__()
        self.body, self.head = conv(3, 10), nn.Conv2d(10, 2 * 16, 1)

    def forward(self, x):
        return F.pixel_shuffle(self.head(self.body(x)), 4)


@case(8, 3, 16, 16, other=(16, 3, 16, 16))
class TemporalShift(nn.Module):
    """TSM: an eighth of the channels shifts forth, another back."""

    def __init__(self, segments=4, fold_div=8):
        super().__init__()
        self.n_segment, self.fold_div = segments, fold_div
        self.a, self.b, self.head = conv(3, 16), conv(16, 12), nn.Conv2d(12, 2, 1)

    def forward(self, x):
        x = self.a(x)
        nt, c, h, w = x.size()
        x = x.view(nt // self.n_segment, self.n_segment, c, h, w)
        fold = c // self.fold_div
        out = torch.zeros_like(x)
        out[:, :-1, :fold] = x[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return self.head(self.b(out.view(nt, c, h, w)))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class AxialShift(nn.Module):
    """AS-MLP, S2-MLP: a group of channels for each direction, by roll."""

    def __init__(self, dim=15):
        super().__init__()
        self.a, self.mix, self.head = conv(3, dim), nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, 2, 1)

    def forward(self, x):
        x = self.a(x)
        shifted = [torch.roll(g, s, 2) for g, s in zip(torch.chunk(x, 3, 1), range(-1, 2), strict=True)]
        return self.head(torch.relu(self.mix(torch.cat(shifted, 1))))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class ShuffleUnit(nn.Module):
    """ShuffleNet v2: half passes, half is worked on, then two halves are shuffled."""

    def __init__(self, c=16):
        super().__init__()
        self.stem = conv(3, c)
        self.branch = nn.ModuleList([self._branch(c // 2) for _ in range(2)])
        self.head = nn.Conv2d(c, 2, 1)

    @staticmethod
    def _branch(c):
        return nn.Sequential(
            conv(c, c, 1), nn.Conv2d(c, c, 3, 1, 1, groups=c), nn.BatchNorm2d(c), conv(c, c, 1)
        )

    @staticmethod
    def channel_shuffle(x, groups):
        b, c, h, w = x.size()
        x = x.view(b, groups, c // groups, h, w)
        return torch.transpose(x, 1, 2).contiguous().view(b, -1, h, w)

    def forward(self, x):
        x = self.stem(x)
        for branch in self.branch:
            x1, x2 = x.chunk(2, dim=1)
            x = self.channel_shuffle(torch.cat((x1, branch(x2)), dim=1), 2)
        return self.head(x)


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class ShuffleModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.g1 = conv(3, 12), conv(12, 18, 1, groups=3)
        self.shuffle, self.g2 = nn.ChannelShuffle(3), conv(18, 12, 1, groups=3)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.g2(self.shuffle(self.g1(x))))


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("b.1.0",))
class ShortcutOptionA(nn.Module):
    """ResNet for CIFAR: the shortcut is strided, and padded with channels of zeros on both sides."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = (
            conv(3, 8),
            nn.Sequential(conv(8, 16, 3, 2), conv(16, 16)),
            nn.Conv2d(16, 2, 1),
        )

    def forward(self, x):
        x = self.a(x)
        planes = 16
        return self.head(self.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4)))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class ZeroPaddedByCat(nn.Module):
    """PyramidNet: the shortcut is padded with zeros made on the spot."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 13), nn.Conv2d(13, 2, 1)

    def forward(self, x):
        short = self.a(x)
        out = self.b(short)
        b, c, h, w = out.shape
        zeros = torch.zeros(b, c - short.size(1), h, w, dtype=x.dtype, device=x.device)
        return self.head(torch.relu(out + torch.cat((short, zeros), 1)))


@case(1, 3, 16, 16, other=(2, 3, 32, 32))
class SegNetUnpool(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 14)
        self.c, self.d = conv(14, 8), conv(8, 6)
        self.pool, self.unpool = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a = self.a(x)
        x, first = self.pool(a)
        b = self.b(x)
        x, second = self.pool(b)
        x = self.c(self.unpool(x, second, output_size=b.size()))
        return self.head(self.d(F.max_unpool2d(x, first, 2, 2, output_size=a.size()[2:])))


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("a",))
class Maxout(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(10, 18, 1), nn.Conv2d(9, 2, 1)

    def forward(self, x):
        x1, x2 = torch.split(self.a(x), 10, dim=1)
        x = torch.max(x1, x2)
        y = self.b(x)
        return self.head(torch.maximum(y[:, 0::2], y[:, 1::2]))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class GatedLinearUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(10, 24, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x):
        x = F.glu(self.a(x), dim=1)
        a, b = self.b(x).chunk(2, 1)
        return self.head(F.silu(a) * b)


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class PartialConvolution(nn.Module):
    """FasterNet: a quarter of the channels is convolved, in place or by split."""

    def __init__(self, dim=16, n_div=4):
        super().__init__()
        self.dim_conv3 = dim // n_div
        self.dim_untouched = dim - self.dim_conv3
        self.stem = conv(3, dim)
        self.partial = nn.Conv2d(self.dim_conv3, self.dim_conv3, 3, 1, 1, bias=False)
        self.second = nn.Conv2d(self.dim_conv3, self.dim_conv3, 3, 1, 1, bias=False)
        self.head = nn.Conv2d(dim, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x1, x2 = torch.split(x, [self.dim_conv3, self.dim_untouched], dim=1)
        x = torch.cat((self.partial(x1), x2), 1)
        x = x.clone()
        x[:, : self.dim_conv3, :, :] = self.second(x[:, : self.dim_conv3, :, :])
        return self.head(x)


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class Res2NetScales(nn.Module):
    def __init__(self, width=6, scale=4):
        super().__init__()
        self.width, self.nums = width, scale - 1
        self.stem, self.expand = conv(3, 10), conv(10, width * scale, 1)
        self.convs = nn.ModuleList([conv(width, width) for _ in range(self.nums)])
        self.reduce, self.head = conv(width * scale, 10, 1), nn.Conv2d(10, 2, 1)

    def forward(self, x):
        short = self.stem(x)
        spx = torch.split(self.expand(short), self.width, 1)
        for i in range(self.nums):
            sp = spx[i] if i == 0 else sp + spx[i]  # noqa: F821 - bound in the first round
            sp = self.convs[i](sp)
            out = sp if i == 0 else torch.cat((out, sp), 1)  # noqa: F821
        out = torch.cat((out, spx[self.nums]), 1)
        return self.head(self.reduce(out) + short)


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class CrossStage(nn.Module):
    """GhostNet and YOLO's C2f: features made cheaply, cut off at a width, collected in a list."""

    def __init__(self):
        super().__init__()
        self.oup = 11
        self.primary = conv(3, 6)
        self.cheap = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False), nn.BatchNorm2d(6))
        self.cv1, self.c = nn.Conv2d(11, 16, 1), 8
        self.m = nn.ModuleList([conv(8, 8) for _ in range(2)])
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, x):
        a = self.primary(x)
        x = torch.cat([a, self.cheap(a)], dim=1)[:, : self.oup, :, :]
        y = list(self.cv1(x).split((self.c, self.c), 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.head(torch.cat(y, 1))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class RepeatedChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 5), conv(15, 8), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        x = self.b(self.a(x).repeat(1, 3, 1, 1))
        return self.head(x.repeat_interleave(2, dim=1))


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("b.0",))
class MeanOfBlocks(nn.Module):
    """The shortcut is widened or narrowed by averaging runs of channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.a(x)
        b, c, h, w = x.shape
        short = x.view(b, 8, c // 8, h, w).mean(2)
        return self.head(self.b(x) + short)
