"""Attention of channels to channels, and other distributions over channels: softmax over what a cut takes."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.cases import case, conv
from tests.others.on_tokens import on_tokens


class Heads(nn.Module):
    """Queries, keys and values from one layer; `between` says how channels are mixed within each head."""

    def __init__(self, between, dim=16, heads=4):
        super().__init__()
        self.num_heads, self.between, self.scale = heads, between, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 4, 1)
        mixed = self.between(self, *qkv.unbind(0))  # (B, heads, width, N), as each of the three
        return x + self.proj(mixed.permute(0, 3, 1, 2).reshape(B, N, C))


def stored_scale(self, q, k, v):
    """DaViT: keys meet values, queries are mixed."""
    return ((k * self.scale) @ v.transpose(-1, -2)).softmax(dim=-1) @ q


def scale_of_places(self, q, k, v):
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v


def root_of_width(self, q, k, v):
    return ((q @ k.transpose(-1, -2)) / math.sqrt(q.shape[2])).softmax(dim=-1) @ v


def temperature_of_scores(self, q, k, v):
    """XCiT, EdgeNeXt."""
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    return ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1) @ v


def temperature_of_queries(self, q, k, v):
    q, k = F.normalize(q, dim=-1) * self.temperature, F.normalize(k, dim=-1)
    return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def fused(self, q, k, v):
    return F.scaled_dot_product_attention(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, scale=1.0)


def fused_with_temperature(self, q, k, v):
    q, k = F.normalize(q, dim=-1) * self.temperature, F.normalize(k, dim=-1)
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


def fused_with_mask(self, q, k, v):
    mask = torch.eye(q.shape[2], dtype=torch.bool).logical_not()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.25)


def both_ways(self, q, k, v):
    scores = q @ k.transpose(-1, -2) / 4
    return (scores.softmax(-1) * scores.softmax(-2)) @ v


def of_logarithms(self, q, k, v):
    return F.log_softmax(q @ k.transpose(-1, -2) / 4, dim=-1) @ v


def over_heads(self, q, k, v):
    return q.softmax(1) * k + v


def over_width(self, q, k, v):
    """Each place distributes itself over the channels of each head."""
    return q.softmax(2) * k + v


def over_all(self, q, k, v):
    return q.flatten(1, 2).softmax(1).view(v.shape) * k + v


def as_many_times(self, q, k, v):
    """The count of channels is a factor: it says how many there were."""
    return q.softmax(2) * q.shape[2] + k + v


for _between, *_pinned in (
    (stored_scale,),
    (scale_of_places,),
    (root_of_width,),
    (temperature_of_scores, "block"),
    (temperature_of_queries, "block"),
    (fused,),
    (fused_with_temperature, "block"),
    (fused_with_mask, "patch", "block.qkv"),
    (both_ways,),
    (of_logarithms,),
    (over_heads,),
    (over_width,),
    (over_all,),
    (as_many_times, "patch"),
):
    on_tokens(f"Channels_{_between.__name__}", lambda between=_between: Heads(between), *_pinned)


@case(1, 3, 16, 16, other=(2, 3, 16, 24))
class DoubleAttention(nn.Module):
    """A2-Nets: gathered by maps over places, given out by distributions over what was gathered."""

    def __init__(self, c=12, m=10, n=8):
        super().__init__()
        self.stem = conv(3, c)
        self.convA, self.convB, self.convV = nn.Conv2d(c, m, 1), nn.Conv2d(c, n, 1), nn.Conv2d(c, n, 1)
        self.reconstruct, self.head = nn.Conv2d(m, c, 1), nn.Conv2d(c, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        b, _, h, w = x.shape
        features, maps, vectors = self.convA(x), self.convB(x), self.convV(x)
        gathered = features.flatten(2) @ F.softmax(maps.flatten(2), dim=-1).transpose(1, 2)
        given = gathered @ F.softmax(vectors.flatten(2), dim=1)
        return self.head(x + self.reconstruct(given.view(b, -1, h, w)))


@case(1, 3, 16, 16, other=(2, 3, 16, 24), pinned=("route", ""))
class Mixtures(nn.Module):
    """Branches weighed by what a router says of each image, then by numbers that are learnt once for all."""

    def __init__(self, c=12):
        super().__init__()
        self.stem, self.route = conv(3, c), nn.Linear(c, 3)
        self.weights = nn.Parameter(torch.rand(2))
        self.branches = nn.ModuleList(conv(c, c, k) for k in (1, 3, 5))
        self.head = nn.Conv2d(c, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        shares = self.route(x.mean((2, 3))).softmax(1)
        mixed = (torch.stack([f(x) for f in self.branches], 1) * shares[:, :, None, None, None]).sum(1)
        first, second = self.weights.softmax(0)
        return self.head(first * x + second * mixed)


@case(1, 3, 16, 16, other=(2, 3, 16, 24))
class SoftGates(nn.Module):
    """One distribution over all channels of an image, one over the channels of each place."""

    def __init__(self, c=12):
        super().__init__()
        self.stem, self.fc = conv(3, c), nn.Linear(c, c)
        self.head = nn.Conv2d(c, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x * self.fc(x.mean((2, 3))).softmax(-1)[:, :, None, None]
        return self.head(x - x.softmax(1))
