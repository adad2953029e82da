"""Small whole networks: volumes, signals, nested, fused and joined maps."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.cases import case, conv, noise


def conv3(cin, cout, stride=1):
    return nn.Sequential(
        nn.Conv3d(cin, cout, 3, stride, 1), nn.InstanceNorm3d(cout, affine=True), nn.LeakyReLU(0.01)
    )


@case(1, 1, 8, 8, 8, other=(2, 1, 8, 16, 8))
class UNet3D(nn.Module):
    def __init__(self):
        super().__init__()
        self.e1, self.e2, self.e3 = conv3(1, 6), conv3(6, 10), conv3(10, 14)
        self.pool = nn.MaxPool3d(2)
        self.u2, self.d2 = nn.ConvTranspose3d(14, 10, 2, 2), conv3(20, 10)
        self.d1, self.head = conv3(16, 8), nn.Conv3d(8, 3, 1)

    def forward(self, x):
        a = self.e1(x)
        b = self.e2(self.pool(a))
        c = self.e3(self.pool(b))
        b = self.d2(torch.cat([self.u2(c), b], dim=1))
        b = F.interpolate(b, scale_factor=2, mode="trilinear", align_corners=False)
        return self.head(self.d1(torch.cat([b, a], dim=1)))


@case(
    1,
    1,
    8,
    8,
    8,
    other=(2, 1, 8, 8, 8),
    pinned=(
        "first.0",
        "head",
    ),
)
class VNet(nn.Module):
    """The image is repeated to the first layer's width and added to it: the number of copies is a literal."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(1, 8, 5, padding=2), nn.BatchNorm3d(8))
        self.down, self.prelu = nn.Conv3d(8, 12, 2, 2), nn.PReLU(12)
        self.up, self.head = nn.ConvTranspose3d(12, 6, 2, 2), nn.Conv3d(14, 2, 1)

    def forward(self, x):
        a = F.elu(self.first(x) + x.repeat(1, 8, 1, 1, 1))
        y = self.prelu(self.down(a))
        return F.softmax(self.head(torch.cat((self.up(y), a), 1)), dim=1)


class RSU(nn.Module):
    """A U in a U, of U^2-Net."""

    def __init__(self, cin, mid, cout):
        super().__init__()
        self.first, self.a, self.b = conv(cin, cout), conv(cout, mid), conv(mid, mid)
        self.dirate, self.c, self.d = conv(mid, mid), conv(mid * 2, mid), conv(mid * 2, cout)

    def forward(self, x):
        hx = self.first(x)
        a = self.a(hx)
        b = self.b(F.max_pool2d(a, 2, stride=2, ceil_mode=True))
        c = self.c(torch.cat((self.dirate(b), b), 1))
        return self.d(torch.cat((F.interpolate(c, size=a.shape[2:], mode="bilinear"), a), 1)) + hx


@case(1, 3, 16, 16, other=(2, 3, 24, 16))
class U2Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.s1, self.s2 = RSU(3, 5, 8), RSU(8, 6, 10)
        self.s1d = RSU(18, 5, 8)
        self.side1, self.side2, self.out = nn.Conv2d(8, 1, 1), nn.Conv2d(10, 1, 1), nn.Conv2d(2, 1, 1)

    def forward(self, x):
        one = self.s1(x)
        two = self.s2(F.max_pool2d(one, 2, 2))
        up = F.interpolate(two, one.shape[2:], mode="bilinear")
        d1 = self.side1(self.s1d(torch.cat((up, one), 1)))
        d2 = F.interpolate(self.side2(two), d1.shape[2:], mode="bilinear")
        d0 = self.out(torch.cat((d1, d2), 1))
        return torch.sigmoid(d0), torch.sigmoid(d1), torch.sigmoid(d2)


@case(1, 3, 16, 16, other=(2, 3, 32, 16))
class HighResolution(nn.Module):
    """HRNet: each branch is the sum of all branches, resized."""

    def __init__(self, widths=(6, 9, 13)):
        super().__init__()
        n = len(widths)
        self.stems = nn.ModuleList(
            [conv(3 if i == 0 else widths[i - 1], w, 3, 1 + (i > 0)) for i, w in enumerate(widths)]
        )
        self.fuse = nn.ModuleList(
            [nn.ModuleList([self._path(widths, i, j) for j in range(n)]) for i in range(n)]
        )
        self.head = nn.Conv2d(sum(widths), 2, 1)

    @staticmethod
    def _path(widths, i, j):
        if i == j:
            return None
        if j > i:
            return nn.Sequential(nn.Conv2d(widths[j], widths[i], 1, bias=False), nn.BatchNorm2d(widths[i]))
        steps = [conv(widths[j], widths[j], 3, 2) for _ in range(i - j - 1)]
        return nn.Sequential(*steps, nn.Conv2d(widths[j], widths[i], 3, 2, 1), nn.BatchNorm2d(widths[i]))

    def _arriving(self, xs, i, j):
        """Branch j as branch i takes it."""
        if i == j:
            return xs[j]
        y = self.fuse[i][j](xs[j])
        return F.interpolate(y, size=[xs[i].shape[-2], xs[i].shape[-1]], mode="bilinear") if j > i else y

    def forward(self, x):
        xs = []
        for stem in self.stems:
            x = stem(x)
            xs.append(x)
        fused = []
        for i in range(len(self.fuse)):
            y = xs[0] if i == 0 else self.fuse[i][0](xs[0])
            for j in range(1, len(xs)):
                y = y + self._arriving(xs, i, j)
            fused.append(F.relu(y))
        h, w = fused[0].size(2), fused[0].size(3)
        return self.head(torch.cat([fused[0]] + [F.interpolate(f, size=(h, w)) for f in fused[1:]], 1))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class PyramidByDict(nn.Module):
    def __init__(self):
        super().__init__()
        widths = {"c2": 6, "c3": 9, "c4": 12}
        self.stages = nn.ModuleDict({"c2": conv(3, 6), "c3": conv(6, 9, 3, 2), "c4": conv(9, 12, 3, 2)})
        self.lateral = nn.ModuleDict({k: nn.Conv2d(v, 10, 1) for k, v in widths.items()})
        self.smooth = nn.ModuleDict({k: nn.Conv2d(10, 10, 3, padding=1) for k in widths})
        self.head = nn.Conv2d(30, 2, 1)

    def forward(self, x):
        feats = {}
        for name, stage in self.stages.items():
            x = feats[name] = stage(x)
        top, outs = None, {}
        for name in sorted(feats, reverse=True):
            y = self.lateral[name](feats[name])
            top = y if top is None else y + F.interpolate(top, scale_factor=2)
            outs[name] = self.smooth[name](top)
        size = outs["c2"].shape[-2:]
        return self.head(torch.cat([F.interpolate(outs[k], size) for k in feats], 1))


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("",))
class ReparametrisedBranches(nn.Module):
    """RepVGG in training form, with a learnt weight for each branch as in BiFPN."""

    def __init__(self, c=12):
        super().__init__()
        self.stem, self.rbr_identity = conv(3, c), nn.BatchNorm2d(c)
        self.rbr_dense = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))
        self.rbr_1x1 = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.w, self.head = nn.Parameter(torch.ones(3)), nn.Conv2d(c, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        w = F.relu(self.w)
        w = w / (torch.sum(w, dim=0) + 1e-4)
        return self.head(
            F.relu(w[0] * self.rbr_dense(x) + w[1] * self.rbr_1x1(x) + w[2] * self.rbr_identity(x))
        )


@case(
    1,
    3,
    16,
    16,
    other=(2, 3, 16, 16),
    pinned=(
        "aux",
        "q",
    ),
)
class ObjectContext(nn.Module):
    """OCRNet: regions are gathered by the soft map of an auxiliary head, and attended to."""

    def __init__(self, c=12, key=8, classes=3):
        super().__init__()
        self.body = conv(3, c)
        self.aux, self.q = nn.Conv2d(c, classes, 1), nn.Conv2d(c, key, 1)
        self.k, self.v = nn.Conv2d(c, key, 1), nn.Conv2d(c, key, 1)
        self.up, self.head = nn.Conv2d(key, c, 1), nn.Conv2d(2 * c, classes, 1)
        self.key_channels = key

    def forward(self, x):
        feats = self.body(x)
        aux = self.aux(feats)
        b, k, h, w = aux.size()
        probs = F.softmax(aux.view(b, k, -1), dim=2)
        regions = (
            torch.matmul(probs, feats.view(b, feats.size(1), -1).permute(0, 2, 1))
            .permute(0, 2, 1)
            .unsqueeze(3)
        )
        query = self.q(feats).view(b, self.key_channels, -1).permute(0, 2, 1)
        key = self.k(regions).view(b, self.key_channels, -1)
        value = self.v(regions).view(b, self.key_channels, -1).permute(0, 2, 1)
        sim = F.softmax((self.key_channels**-0.5) * torch.matmul(query, key), dim=-1)
        context = torch.matmul(sim, value).permute(0, 2, 1).contiguous().view(b, self.key_channels, h, w)
        return aux, self.head(torch.cat([self.up(context), feats], 1))


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("query",))
class MaskQueries(nn.Module):
    """MaskFormer in small: queries attend to the map; masks are their product with it."""

    def __init__(self, c=14, queries=5):
        super().__init__()
        self.body, self.mask, self.query = conv(3, c), nn.Conv2d(c, 9, 1), nn.Embedding(queries, c)
        self.k, self.v = nn.Linear(c, c), nn.Linear(c, c)
        self.mlp, self.cls = nn.Sequential(nn.Linear(c, 11), nn.ReLU(), nn.Linear(11, 9)), nn.Linear(c, 4)

    def forward(self, x):
        f = self.body(x)
        tokens = f.flatten(2).transpose(1, 2)
        q = self.query.weight.unsqueeze(0).repeat(x.shape[0], 1, 1)
        attn = torch.einsum("bqc,bnc->bqn", q, self.k(tokens)).softmax(-1)
        q = q + attn @ self.v(tokens)
        return {
            "pred_masks": torch.einsum("bqc,bchw->bqhw", self.mlp(q), self.mask(f)),
            "pred_logits": self.cls(q),
        }


@case(example=lambda: (noise(2, 1, 40),), other=lambda: (noise(1, 1, 80),))
class UNet1D(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 7, 5, padding=2), nn.Conv1d(7, 12, 5, padding=2)
        self.n, self.up, self.head = nn.BatchNorm1d(12), nn.ConvTranspose1d(12, 6, 2, 2), nn.Conv1d(13, 2, 1)

    def forward(self, x):
        a = F.relu(self.a(x))
        b = F.relu(self.n(self.b(F.max_pool1d(a, 2))))
        return self.head(torch.cat([F.pad(self.up(b), (0, 0)), a], 1))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class MovedPadding(nn.Module):
    """Circular, reflected and odd padding; crops; strided slices; flips."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 9, 3, padding=1, padding_mode="circular")
        self.b = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(18, 10, 3), nn.ZeroPad2d((0, 1, 0, 1)))
        self.head = nn.Conv2d(19, 2, 1)

    def forward(self, x):
        a = F.relu6(self.a(x))
        b = self.b(torch.cat([a, a.flip(-1)], 1))[..., : a.size(2), : a.size(3)]
        return self.head(torch.cat([b, a], 1))[:, :, 1:-1, 1:-1]


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class DenseConnections(nn.Module):
    """FC-DenseNet: every layer reads all before it, the list is joined anew each time."""

    def __init__(self, growth=5):
        super().__init__()
        self.stem, c = conv(3, 8), 8
        self.layers = nn.ModuleList()
        for _ in range(3):
            self.layers.append(
                nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, growth, 3, padding=1))
            )
            c += growth
        self.trans, self.head = nn.Conv2d(c, c // 2, 1), nn.Conv2d(c // 2, 2, 1)

    def forward(self, x):
        feats = [self.stem(x)]
        for layer in self.layers:
            feats.append(layer(torch.cat(feats, 1)))
        return self.head(self.trans(torch.cat(feats, 1)))
