"""Attention by hand whose scale is the root of a width, as each author writes it."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.on_tokens import on_tokens


class ByHeadSize(nn.Module):
    """Heads of a size that an attribute states; the sum of the scores is divided by its root."""

    def __init__(self, dim=16, heads=4):
        super().__init__()
        self.heads, self.head_size = heads, dim // heads
        self.all_size = self.heads * self.head_size
        self.query, self.key, self.value = (nn.Linear(dim, self.all_size) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def split(self, x):
        return x.view(*x.size()[:-1], self.heads, self.head_size).permute(0, 2, 1, 3)

    def forward(self, x):
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.head_size)
        mixed = torch.matmul(scores.softmax(-1), v).permute(0, 2, 1, 3).contiguous()
        return x + self.out(mixed.view(*mixed.size()[:-2], self.all_size))


class BySizeOfQueries(nn.Module):
    """One head; the queries are scaled, by the size that their tensor has."""

    def __init__(self, dim=16, inner=12):
        super().__init__()
        self.query, self.key = nn.Linear(dim, inner, bias=False), nn.Linear(dim, inner)
        self.value = nn.Linear(dim, dim)

    def forward(self, x):
        q, k = self.query(x), self.key(x)
        return x + torch.bmm((q * q.shape[-1] ** -0.5) @ k.transpose(1, 2), self.value(x))


class GivenToTheKernel(nn.Module):
    """Fused attention that is told the root of a width."""

    def __init__(self, dim=16, heads=2):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5)
        return x + self.out(mixed.transpose(1, 2).reshape(n, length, width))


class BiasOfEachHead(nn.Module):
    """Fused attention with a learnt number for each head, in a stream that is as wide as all heads."""

    def __init__(self, dim=16, heads=4):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.randn(heads, 1, 1))

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        far = torch.eye(length) * self.bias
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=far.unsqueeze(0))
        return x + self.out(mixed.transpose(1, 2).reshape(n, length, width))


class StoredBesideAnEqualOne(ByHeadSize):
    """Its own scale is a number; the one that is computed belongs to another tensor, as wide by chance."""

    def __init__(self, dim=16, heads=4):
        super().__init__(dim, heads)
        self.scale = self.head_size**-0.5
        self.gate = nn.Linear(dim, self.head_size)
        self.gated = nn.Linear(self.head_size, dim)

    def forward(self, x):
        gate = self.gate(x) / math.sqrt(self.head_size)
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        mixed = (torch.matmul(q, k.transpose(-1, -2)) * self.scale).softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).flatten(2)) + self.gated(gate)


on_tokens("AttentionByHeadSize", ByHeadSize)
on_tokens("AttentionBySizeOfQueries", BySizeOfQueries)
on_tokens("AttentionGivenTheRoot", GivenToTheKernel)
on_tokens("AttentionWithBiasOfEachHead", BiasOfEachHead, "block")
on_tokens("AttentionStoredBesideAnEqualOne", StoredBesideAnEqualOne)
