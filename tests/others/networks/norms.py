"""Norms, scales and weights that are computed, written outside torch.nn."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from tests.others.cases import case, conv


def _net(name, make, *pinned, width=12, **more):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, width, 3, padding=1)
            self.norm = make()
            self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 10, 3, padding=1), nn.ReLU())
            self.head = nn.Conv2d(10, 2, 1)

        def forward(self, x):
            return self.head(self.body(self.norm(self.stem(x))))

    Net.__name__ = name
    return case(1, 3, 12, 12, other=(2, 3, 8, 8), pinned=pinned, **more)(Net)


class ChannelsFirstLayerNorm(nn.Module):
    def __init__(self, dim=12, eps=1e-6):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x):
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class VarianceLayerNorm(nn.Module):
    def __init__(self, dim=12):
        super().__init__()
        self.g, self.b = nn.Parameter(torch.ones(1, dim, 1, 1)), nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x):
        var = torch.var(x, dim=1, unbiased=False, keepdim=True)
        return (x - torch.mean(x, dim=1, keepdim=True)) * (var + 1e-5).rsqrt() * self.g + self.b


class GRN(nn.Module):
    def __init__(self, dim=12):
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, dim)) for _ in range(2))

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        gx = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        nx = gx / (gx.mean(dim=-1, keepdim=True) + 1e-6)
        return (self.gamma * (x * nx) + self.beta + x).permute(0, 3, 1, 2)


class HandRMSNorm(nn.Module):
    def __init__(self, dim=12):
        super().__init__()
        self.scale = dim**0.5
        self.g = nn.Parameter(torch.ones(dim, 1, 1))

    def forward(self, x):
        return F.normalize(x, dim=1) * self.g * self.scale


class LastRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(12)

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class FilterResponseNorm(nn.Module):
    def __init__(self, c=12):
        super().__init__()
        self.tau, self.beta, self.gamma = (nn.Parameter(torch.zeros(1, c, 1, 1)) for _ in range(3))
        self.eps = nn.Parameter(torch.tensor([1e-4]))

    def forward(self, x):
        nu2 = x.pow(2).mean(dim=(2, 3), keepdim=True)
        return torch.max(self.gamma * x * torch.rsqrt(nu2 + self.eps.abs()) + self.beta, self.tau)


class HandGroupNorm(nn.Module):
    def __init__(self, c=12, groups=3):
        super().__init__()
        self.num_groups = groups
        self.weight, self.bias = (nn.Parameter(torch.ones(1, c, 1, 1)) for _ in range(2))

    def forward(self, x):
        N, C, H, W = x.size()
        x = x.view(N, self.num_groups, -1)
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt()
        return x.view(N, C, H, W) * self.weight + self.bias


class SwitchableNorm(nn.Module):
    def __init__(self, c=12):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.weight, self.bias = (nn.Parameter(torch.ones(1, c, 1, 1)) for _ in range(2))

    def forward(self, x):
        n, c, h, w = x.size()
        x = x.view(n, c, -1)
        mean_in, var_in = x.mean(-1, keepdim=True), x.var(-1, keepdim=True)
        mean_ln = mean_in.mean(1, keepdim=True)
        var_ln = (var_in + mean_in**2).mean(1, keepdim=True) - mean_ln**2
        a, b = F.softmax(self.w, 0)
        x = (x - a * mean_in - b * mean_ln) / (a * var_in + b * var_ln + 1e-5).sqrt()
        return x.view(n, c, h, w) * self.weight + self.bias


class LocalResponse(nn.Module):
    def forward(self, x):
        return F.local_response_norm(x, 3)


class LayerScaleAndPosition(nn.Module):
    """A scale for each channel, and a position table for each channel and place, resized to the image."""

    def __init__(self, dim=12):
        super().__init__()
        self.gamma = nn.Parameter(1e-1 * torch.ones(dim))
        self.pos = nn.Parameter(torch.zeros(1, dim, 6, 6))

    def forward(self, x):
        pos = F.interpolate(self.pos, size=x.shape[-2:], mode="bicubic", align_corners=False)
        return x + self.gamma.reshape(1, -1, 1, 1) * (x + pos)


class LearntRowsAndColumns(nn.Module):
    """DETR's learnt positions."""

    def __init__(self, feats=6):
        super().__init__()
        self.row_embed, self.col_embed = nn.Embedding(20, feats), nn.Embedding(20, feats)

    def forward(self, x):
        h, w = x.shape[-2:]
        x_emb, y_emb = self.col_embed(torch.arange(w)), self.row_embed(torch.arange(h))
        pos = torch.cat([x_emb.unsqueeze(0).repeat(h, 1, 1), y_emb.unsqueeze(1).repeat(1, w, 1)], dim=-1)
        return x + pos.permute(2, 0, 1).unsqueeze(0).repeat(x.shape[0], 1, 1, 1)


class SinusoidalPosition(nn.Module):
    """A fixed table of the network's width: its channels stay."""

    def forward(self, x):
        _, c, _, w = x.shape
        freq = torch.arange(c, dtype=x.dtype)[None, :, None, None]
        return x + torch.sin(torch.arange(w, dtype=x.dtype)[None, None, None, :] / 10 ** (freq / c))


_net("NetChannelsFirstLayerNorm", ChannelsFirstLayerNorm)
_net("NetVarianceLayerNorm", VarianceLayerNorm)
_net("NetGRN", GRN)
_net("NetHandRMSNorm", HandRMSNorm)
_net("NetLastRMSNorm", LastRMSNorm)
_net("NetFilterResponseNorm", FilterResponseNorm)
_net("NetHandGroupNorm", HandGroupNorm)
_net("NetSwitchableNorm", SwitchableNorm, "norm")
_net("NetLocalResponse", LocalResponse, "stem")
_net("NetLayerScaleAndPosition", LayerScaleAndPosition, "norm", "norm#2")
_net("NetLearntRowsAndColumns", LearntRowsAndColumns, "norm.row_embed", "norm.col_embed")
_net("NetSinusoidalPosition", SinusoidalPosition, "stem")
_net("NetInstanceNorm", lambda: nn.InstanceNorm2d(12))
_net("NetBatchNormWithoutAffine", lambda: nn.BatchNorm2d(12, affine=False))
_net("NetGroupNormWithoutAffine", lambda: nn.GroupNorm(4, 12, affine=False))
_net("NetGroupNormOfOne", lambda: nn.GroupNorm(1, 12))
_net("NetPReLU", lambda: nn.PReLU(12))


class StandardisedConv(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        mean = w.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        w = w - mean
        std = w.view(w.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(x, w / std.expand_as(w), self.bias, self.stride, self.padding)


IMAGE = ("a#2", "a.parametrizations.weight#2")  # the channels of the image


def _computed(name, wrap, *pinned):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = wrap(nn.Conv2d(3, 10, 3, padding=1)), wrap(nn.Conv2d(10, 14, 3, padding=1))
            self.fc, self.up = wrap(nn.Linear(14, 9)), wrap(nn.ConvTranspose2d(9, 8, 2, 2))
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = torch.relu(self.b(torch.relu(self.a(x))))
            x = torch.relu(self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
            return self.head(self.up(x))

    Net.__name__ = name
    return case(1, 3, 12, 12, other=(2, 3, 8, 8), pinned=pinned)(Net)


_computed("OldWeightNorm", weight_norm, *IMAGE)
_computed("NewWeightNorm", parametrizations.weight_norm, *IMAGE)
_computed("WeightNormOfColumns", lambda m: weight_norm(m, dim=1), *IMAGE)
_computed("OldSpectralNorm", spectral_norm, *IMAGE)
_computed("NewSpectralNorm", parametrizations.spectral_norm, *IMAGE)


@case(1, 3, 12, 12, other=(2, 3, 8, 8))
class WeightStandardisation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = StandardisedConv(3, 12, 3, padding=1), StandardisedConv(12, 16, 3, padding=1)
        self.n, self.m = nn.GroupNorm(4, 12), nn.GroupNorm(4, 16)
        self.head = conv(16, 8), nn.Conv2d(8, 2, 1)
        self.tail = nn.Sequential(*self.head)

    def forward(self, x):
        return self.tail(torch.relu(self.m(self.b(torch.relu(self.n(self.a(x)))))))
