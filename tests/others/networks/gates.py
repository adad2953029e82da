"""Gates and attention over channels and space, as papers' repositories write them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.cases import case, conv


class _Body(nn.Module):
    """stem, block, head."""

    def __init__(self, block, width=16):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 9), conv(9, width))
        self.block = block
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        return self.head(self.block(self.stem(x)))


def _body(block, *pinned, **more):
    """Registers the block within a small network."""

    class Net(_Body):
        def __init__(self):
            super().__init__(block())

    Net.__name__ = block.__name__
    case(1, 3, 16, 16, other=more.pop("other", (2, 3, 16, 16)), pinned=pinned, **more)(Net)
    return block


class SELayer(nn.Module):
    def __init__(self, channel=16, reduction=4):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channel, channel // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channel // reduction, channel, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


class CBAM(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(c, 6), nn.ReLU(), nn.Linear(6, c))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x):
        avg = self.mlp(F.avg_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3))))
        top = self.mlp(F.max_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3))))
        x = x * torch.sigmoid(avg + top).unsqueeze(2).unsqueeze(3).expand_as(x)
        both = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(self.spatial(both))


class ECA(nn.Module):
    """A convolution along the channels: they have an order and neighbours, so they stay."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        y = F.adaptive_avg_pool2d(x, 1)
        y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * y.sigmoid().expand_as(x)


class SCSE(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.c = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 5, 1), nn.ReLU(), nn.Conv2d(5, c, 1))
        self.s = nn.Conv2d(c, 1, 1)

    def forward(self, x):
        return torch.max(x * self.c(x).sigmoid(), x * self.s(x).sigmoid())


class DanetPAM(nn.Module):
    def __init__(self, in_dim=16):
        super().__init__()
        self.chanel_in = in_dim
        self.query_conv = nn.Conv2d(in_dim, in_dim // 2, 1)
        self.key_conv = nn.Conv2d(in_dim, in_dim // 2, 1)
        self.value_conv = nn.Conv2d(in_dim, in_dim, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x):
        b, c, height, width = x.size()
        query = self.query_conv(x).view(b, -1, width * height).permute(0, 2, 1)
        key = self.key_conv(x).view(b, -1, width * height)
        attention = self.softmax(torch.bmm(query, key))
        value = self.value_conv(x).view(b, -1, width * height)
        out = torch.bmm(value, attention.permute(0, 2, 1)).view(b, c, height, width)
        return self.gamma * out + x


class DanetCAM(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        b, c, height, width = x.size()
        query = x.view(b, c, -1)
        energy = torch.bmm(query, x.view(b, c, -1).permute(0, 2, 1))
        energy = torch.max(energy, -1, keepdim=True)[0].expand_as(energy) - energy
        attention = F.softmax(energy / 16.0, dim=-1)
        out = torch.bmm(attention, x.view(b, c, -1)).view(b, c, height, width)
        return self.gamma * out + x


class ChannelMdta(nn.Module):
    """Restormer: heads of channels attend to each other (C/h x C/h)."""

    def __init__(self, dim=16, num_heads=4):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1)
        self.dw = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3)
        self.project_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.dw(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (t.reshape(b, self.num_heads, c // self.num_heads, h * w) for t in (q, k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attn = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        return x + self.project_out((attn @ v).reshape(b, -1, h, w))


class AttentionGate(nn.Module):
    """Attention U-Net."""

    def __init__(self, c=16):
        super().__init__()
        self.g = nn.Sequential(nn.Conv2d(c, 7, 1), nn.BatchNorm2d(7))
        self.x = nn.Sequential(nn.Conv2d(c, 7, 1), nn.BatchNorm2d(7))
        self.psi = nn.Sequential(nn.Conv2d(7, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, x):
        g = F.avg_pool2d(x, 2)
        psi = self.psi(F.relu(F.interpolate(self.g(g), size=x.size()[2:]) + self.x(x)))
        return x * psi


class CoordinateAttention(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.squeeze, self.bn, self.act = nn.Conv2d(c, 6, 1), nn.BatchNorm2d(6), nn.Hardswish()
        self.h, self.w = nn.Conv2d(6, c, 1), nn.Conv2d(6, c, 1)

    def forward(self, x):
        _, _, h, w = x.shape
        along = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], dim=2)
        x_h, x_w = torch.split(self.act(self.bn(self.squeeze(along))), [h, w], dim=2)
        return x * self.h(x_h).sigmoid() * self.w(x_w.permute(0, 1, 3, 2)).sigmoid()


class SelectiveKernels(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.branches = nn.ModuleList([conv(c, c, 3), conv(c, c, 5)])
        self.fc = conv(c, 6, 1)
        self.fcs = nn.ModuleList([nn.Conv2d(6, c, 1) for _ in self.branches])

    def forward(self, x):
        feats = torch.stack([b(x) for b in self.branches], dim=1)
        z = self.fc(feats.sum(1).mean((2, 3), keepdim=True))
        weights = torch.softmax(torch.stack([f(z) for f in self.fcs], dim=1), dim=1)
        return (feats * weights).sum(dim=1)


class MSCA(nn.Module):
    """SegNeXt."""

    def __init__(self, dim=16):
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv0_1 = nn.Conv2d(dim, dim, (1, 7), padding=(0, 3), groups=dim)
        self.conv0_2 = nn.Conv2d(dim, dim, (7, 1), padding=(3, 0), groups=dim)
        self.conv3 = nn.Conv2d(dim, dim, 1)
        self.layer_scale = nn.Parameter(1e-2 * torch.ones(dim), requires_grad=True)

    def forward(self, x):
        u = x.clone()
        attn = self.conv0(x)
        attn = attn + self.conv0_2(self.conv0_1(attn))
        return x + self.layer_scale.unsqueeze(-1).unsqueeze(-1) * (self.conv3(attn) * u)


class EncNetCodewords(nn.Module):
    def __init__(self, d=16, k=5):
        super().__init__()
        self.D, self.K = d, k
        self.codewords = nn.Parameter(torch.rand(k, d))
        self.scale = nn.Parameter(torch.rand(k))
        self.fc = nn.Linear(d, d)

    def forward(self, x):
        b = x.size(0)
        flat = x.view(b, self.D, -1).transpose(1, 2).contiguous()
        n = flat.size(1)
        distance = (
            flat.unsqueeze(2).expand(b, n, self.K, self.D) - self.codewords.view(1, 1, self.K, self.D)
        ).pow(2)
        a = F.softmax(-self.scale.abs().view(1, 1, self.K) * distance.sum(3) / 16, dim=2)
        pairwise = flat.unsqueeze(2).expand(b, n, self.K, self.D) - self.codewords.unsqueeze(0).unsqueeze(0)
        e = (a.unsqueeze(3) * pairwise).sum(1)
        gamma = torch.sigmoid(self.fc(e.mean(1)))
        return F.relu(x + x * gamma.view(b, self.D, 1, 1))


class GlobalContext(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.mask = nn.Conv2d(c, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(c, 6, 1), nn.LayerNorm([6, 1, 1]), nn.ReLU(), nn.Conv2d(6, c, 1)
        )

    def forward(self, x):
        b, c, h, w = x.size()
        mask = torch.softmax(self.mask(x).view(b, 1, h * w), dim=2).unsqueeze(-1)
        context = torch.matmul(x.view(b, c, h * w).unsqueeze(1), mask)
        return x + self.transform(context.view(b, c, 1, 1))


class NonLocalEinsum(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.theta, self.phi, self.g = nn.Conv2d(c, 8, 1), nn.Conv2d(c, 8, 1), nn.Conv2d(c, 10, 1)
        self.out = nn.Conv2d(10, c, 1)

    def forward(self, x):
        n, _, h, w = x.shape
        q, k, v = self.theta(x).flatten(2), self.phi(x).flatten(2), self.g(x).flatten(2)
        sim = torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8)
        out = torch.einsum("bij,bcj->bci", sim.softmax(-1), v)
        return x + self.out(out.reshape(n, 10, h, w))


class LambdaOfLiterals(nn.Module):
    """Efficient attention with heads taken by slices of literal widths."""

    def __init__(self, c=16):
        super().__init__()
        self.keys, self.queries, self.values = nn.Conv2d(c, 8, 1), nn.Conv2d(c, 8, 1), nn.Conv2d(c, 12, 1)
        self.reprojection = nn.Conv2d(12, c, 1)
        self.head_count = 2

    def forward(self, x):
        n, _, h, w = x.size()
        keys = self.keys(x).reshape((n, 8, h * w))
        queries = self.queries(x).reshape(n, 8, h * w)
        values = self.values(x).reshape((n, 12, h * w))
        attended = []
        for i in range(self.head_count):
            key = F.softmax(keys[:, i * 4 : (i + 1) * 4, :], dim=2)
            query = F.softmax(queries[:, i * 4 : (i + 1) * 4, :], dim=1)
            value = values[:, i * 6 : (i + 1) * 6, :]
            attended.append(((key @ value.transpose(1, 2)).transpose(1, 2) @ query).reshape(n, 6, h, w))
        return self.reprojection(torch.cat(attended, 1)) + x


for _block, *_pinned in (
    (SELayer,),
    (CBAM,),
    (ECA, "stem.1.0"),
    (SCSE,),
    (DanetPAM,),
    (DanetCAM,),
    (ChannelMdta, "block"),
    (AttentionGate,),
    (CoordinateAttention,),
    (SelectiveKernels,),
    (MSCA,),
    (EncNetCodewords, "block"),
    (GlobalContext,),
    (NonLocalEinsum, "block.g"),
    (LambdaOfLiterals, "block.keys", "block.queries", "block.values"),
):
    _body(_block, *_pinned)
