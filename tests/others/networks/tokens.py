"""Attention over tokens: torch's own layers, windows and axes by hand, recurrent layers."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.cases import case, conv
from tests.others.on_tokens import OnTokens, on_tokens


class TorchAttention(nn.Module):
    def __init__(self, dim=16, weights=True):
        super().__init__()
        self.norm, self.weights = nn.LayerNorm(dim), weights
        self.attn = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 24), nn.GELU(), nn.Dropout(0.1), nn.Linear(24, dim))

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attn(y, y, y, need_weights=self.weights)[0]
        return x + self.mlp(x)


class CrossAttention(nn.Module):
    """Queries learnt, keys and values of other widths; torch's decoder layer behind it."""

    def __init__(self, dim=16):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 6, 12))
        self.key, self.value = nn.Linear(dim, 10), nn.Linear(dim, 14)
        self.attn = nn.MultiheadAttention(12, 3, kdim=10, vdim=14, batch_first=True)
        self.decode = nn.TransformerDecoderLayer(12, 3, 20, batch_first=True, norm_first=True)
        self.out = nn.Linear(12, dim)

    def forward(self, x):
        query = self.query.expand(len(x), -1, -1)
        found, _ = self.attn(query, self.key(x), self.value(x), need_weights=False)
        return x + self.out(self.decode(found, query).mean(1, keepdim=True))


class HandAttention(nn.Module):
    def __init__(self, dim=16, heads=4):
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3, bias=True), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return x + self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class InnerDimAttention(nn.Module):
    """As lucidrains writes it, without einops."""

    def __init__(self, dim=16, heads=3, dim_head=6):
        super().__init__()
        inner_dim = dim_head * heads
        self.heads, self.scale = heads, dim_head**-0.5
        self.to_qkv, self.to_out = nn.Linear(dim, inner_dim * 3, bias=False), nn.Linear(inner_dim, dim)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in self.to_qkv(x).chunk(3, dim=-1))
        dots = torch.einsum("bhid,bhjd->bhij", q, k) * self.scale
        out = torch.einsum("bhij,bhjd->bhid", dots.softmax(dim=-1), v)
        return x + self.to_out(out.transpose(1, 2).reshape(b, n, -1))


class FusedAttention(nn.Module):
    def __init__(self, dim=16, heads=2):
        super().__init__()
        self.head_dim = dim // heads
        self.q, self.kv, self.o = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        k, v = self.kv(x).view(b, n, 2, -1, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.o(out.transpose(1, 2).flatten(2))


class LinearAttention(nn.Module):
    """Softmax over the width of the queries and over the places of the keys."""

    def __init__(self, dim=16, heads=2):
        super().__init__()
        self.h = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = (f(x).reshape(b, n, self.h, c // self.h).transpose(1, 2) for f in (self.q, self.k, self.v))
        context = k.softmax(dim=2).transpose(-1, -2) @ v
        out = q.softmax(dim=-1) @ context
        return x + self.o(out.transpose(1, 2).reshape(b, n, c))


class Cls(nn.Module):
    """A class token in front, its attention to the patches as a gate."""

    def __init__(self, dim=16):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 64, dim))
        self.attn = HandAttention(dim)

    def forward(self, x):
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.attn(x + self.pos_embed[:, : x.size(1)])
        return x[:, 1:] * torch.sigmoid(x[:, :1])


class SequenceOf(nn.Module):
    def __init__(self, layer, dim=16, out=16):
        super().__init__()
        self.rnn, self.proj = layer, nn.Linear(out, dim)

    def forward(self, x):
        y, _ = self.rnn(x)
        return x + self.proj(y)


class Mixer(nn.Module):
    """Token mixing along a fixed number of places, then channel mixing."""

    def __init__(self, dim=16, tokens=16):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tok = nn.Sequential(nn.Linear(tokens, 20), nn.GELU(), nn.Linear(20, tokens))
        self.chan = nn.Sequential(nn.Linear(dim, 28), nn.GELU(), nn.Linear(28, dim))

    def forward(self, x):
        x = x + self.tok(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.chan(self.n2(x))


on_tokens("TorchMultihead", TorchAttention, "block.attn")
on_tokens("TorchMultiheadWithoutWeights", lambda: TorchAttention(weights=False))
on_tokens(
    "TorchEncoderLayer",
    lambda: nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True),
    "block.self_attn",
)
on_tokens("TorchCrossAttention", CrossAttention, "block")
on_tokens("HandAttentionNet", HandAttention)
on_tokens("InnerDimAttentionNet", InnerDimAttention)
on_tokens("FusedAttentionNet", FusedAttention)
on_tokens("LinearAttentionNet", LinearAttention)
on_tokens("ClassToken", Cls, "block", "block#2")
on_tokens(
    "LSTMNet",
    lambda: SequenceOf(nn.LSTM(16, 10, batch_first=True, bidirectional=True), out=20),
    "patch",
    "block.rnn",
    *(f"block.rnn#{i}" for i in range(2, 13)),
)
on_tokens(
    "GRUNet",
    lambda: SequenceOf(nn.GRU(16, 10, num_layers=2, batch_first=True), out=10),
    "patch",
    "block.rnn",
    *(f"block.rnn#{i}" for i in range(2, 5)),
)


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("block.tok.2",))
class MixerNet(OnTokens):
    def __init__(self):
        super().__init__(Mixer())


@case(
    1,
    3,
    16,
    16,
    other=(2, 3, 32, 16),
    pinned=(
        "",
        "#2",
    ),
)
class WindowAttention(nn.Module):
    """Swin, by hand: windows, a shift by roll, a table of relative positions for each head."""

    def __init__(self, dim=16, window=4, heads=2):
        super().__init__()
        self.window, self.heads, self.scale = window, heads, (dim // heads) ** -0.5
        self.embed, self.norm = nn.Conv2d(3, dim, 2, 2), nn.LayerNorm(dim)
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        at = torch.stack([y, x]).flatten(1)
        near = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", near[..., 0] * (2 * window - 1) + near[..., 1])
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.head = nn.Conv2d(dim, 2, 1)

    def windows(self, x):
        B, H, W, C = x.shape
        x = x.view(B, H // self.window, self.window, W // self.window, self.window, C)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, self.window * self.window, C)

    def whole(self, windows, height, width):
        H, W = height, width
        B = int(windows.shape[0] / (H * W / self.window / self.window))
        x = windows.view(B, H // self.window, W // self.window, self.window, self.window, -1)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(B, H, W, -1)

    def attend(self, x):
        B_, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B_, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(N, N, -1).permute(2, 0, 1).contiguous()
        attn = (q * self.scale) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        return self.proj((attn.softmax(-1) @ v).transpose(1, 2).reshape(B_, N, C))

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        _, H, W, _ = x.shape
        y = torch.roll(self.norm(x), shifts=(-2, -2), dims=(1, 2))
        y = self.whole(self.attend(self.windows(y)), H, W)
        x = x + torch.roll(y, shifts=(2, 2), dims=(1, 2))
        return self.head(x.permute(0, 3, 1, 2))


@case(1, 3, 12, 12, other=(2, 3, 12, 12))
class AxialAttention(nn.Module):
    """Axial-DeepLab in small: rows, then columns; batch and the other axis are folded together."""

    def __init__(self, planes=12, groups=2):
        super().__init__()
        self.groups, self.group_planes = groups, planes // groups
        self.stem, self.qkv = conv(3, planes), nn.Conv1d(planes, planes * 2, 1, bias=False)
        self.bn, self.head = nn.BatchNorm1d(planes * 2), nn.Conv2d(planes, 2, 1)

    def along(self, x, width):
        x = x.permute(0, 2, 1, 3) if width else x.permute(0, 3, 1, 2)
        N, W, C, H = x.shape
        x = x.contiguous().view(N * W, C, H)
        qkv = self.bn(self.qkv(x)).reshape(N * W, self.groups, self.group_planes * 2, H)
        half = self.group_planes // 2
        q, k, v = torch.split(qkv, [half, half, self.group_planes], dim=2)
        similarity = torch.einsum("bgci,bgcj->bgij", q, k).softmax(dim=3)
        out = torch.einsum("bgij,bgcj->bgci", similarity, v).reshape(N, W, C, H)
        return out.permute(0, 2, 1, 3) if width else out.permute(0, 2, 3, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.along(self.along(x, False), True))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class CrissCross(nn.Module):
    """CCNet's affinity along the row and the column of each place."""

    def __init__(self, dim=16):
        super().__init__()
        self.stem = conv(3, dim)
        self.q, self.k, self.v = (
            nn.Conv2d(dim, dim // 4, 1),
            nn.Conv2d(dim, dim // 4, 1),
            nn.Conv2d(dim, dim, 1),
        )
        self.gamma, self.head = nn.Parameter(torch.zeros(1)), nn.Conv2d(dim, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        b, _, h, w = x.size()
        q, k, v = self.q(x), self.k(x), self.v(x)
        q_h = q.permute(0, 3, 1, 2).contiguous().view(b * w, -1, h).permute(0, 2, 1)
        q_w = q.permute(0, 2, 1, 3).contiguous().view(b * h, -1, w).permute(0, 2, 1)
        k_h = k.permute(0, 3, 1, 2).contiguous().view(b * w, -1, h)
        k_w = k.permute(0, 2, 1, 3).contiguous().view(b * h, -1, w)
        v_h = v.permute(0, 3, 1, 2).contiguous().view(b * w, -1, h)
        v_w = v.permute(0, 2, 1, 3).contiguous().view(b * h, -1, w)
        e_h = torch.bmm(q_h, k_h).view(b, w, h, h).permute(0, 2, 1, 3)
        e_w = torch.bmm(q_w, k_w).view(b, h, w, w)
        both = torch.cat([e_h, e_w], 3).softmax(3)
        a_h = both[:, :, :, 0:h].permute(0, 2, 1, 3).contiguous().view(b * w, h, h)
        a_w = both[:, :, :, h : h + w].contiguous().view(b * h, w, w)
        o_h = torch.bmm(v_h, a_h.permute(0, 2, 1)).view(b, w, -1, h).permute(0, 2, 3, 1)
        o_w = torch.bmm(v_w, a_w.permute(0, 2, 1)).view(b, h, -1, w).permute(0, 2, 1, 3)
        return self.head(self.gamma * (o_h + o_w) + x)
