"""How a forward pass is called, and how it holds its parts."""

import dataclasses
from collections import OrderedDict, namedtuple

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.cases import case, conv, noise

Pair = namedtuple("Pair", "logits features")


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    aux: torch.Tensor | None = None


@case(1, 3, 16, 16, other=(2, 3, 24, 24))
class DictOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 10), conv(10, 14)
        self.head, self.aux = nn.Conv2d(14, 3, 1), nn.Conv2d(10, 3, 1)

    def forward(self, x):
        a = self.a(x)
        result = OrderedDict()
        result["out"] = self.head(self.b(a))
        result["aux"] = self.aux(a)
        return result


@case(1, 3, 16, 16, other=(2, 3, 16, 16), train=True)
class DataclassOutThatDiffersInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 10), conv(10, 14)
        self.head = nn.Conv2d(14, 2, 1)
        self.aux = nn.Sequential(conv(10, 9), nn.Dropout(0.1), nn.Conv2d(9, 2, 1))

    def forward(self, x):
        a = self.a(x)
        out = self.head(self.b(a))
        return Answer(out, self.aux(a) if self.training else None)


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class NamedTupleOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 10), conv(10, 4)
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x):
        a = self.a(x)
        return Pair(logits=self.head(a), features=[self.b(a)])


@case(example=lambda: ({"image": noise(1, 3, 16, 16), "edge": noise(1, 1, 16, 16, seed=3)},))
class DictIn(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.edge = conv(3, 10), conv(1, 6)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, batch):
        return {"mask": self.head(torch.cat([self.image(batch["image"]), self.edge(batch["edge"])], 1))}


@case(example=lambda: {"x": noise(1, 3, 16, 16), "depth": noise(1, 1, 16, 16, seed=3), "scale": 2})
class KeywordsIn(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.edge = conv(3, 12), conv(1, 12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x, *, depth=None, scale=1):
        x = self.image(x)
        if depth is not None:
            x = x + self.edge(depth)
        return F.interpolate(self.head(x), scale_factor=scale, mode="bilinear", align_corners=True)


@case(example=lambda: (noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=4)))
class SiameseChangeDetection(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([conv(3, 8), conv(8, 13, stride=2)])
        self.up = nn.ConvTranspose2d(13, 8, 2, 2)
        self.head = nn.Conv2d(24, 2, 3, padding=1)

    def encode(self, x):
        skips = []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        return skips

    def forward(self, before, after):
        a, b = self.encode(before), self.encode(after)
        deep = self.up(torch.abs(a[-1] - b[-1]))
        return self.head(torch.cat((deep, a[0], b[0]), dim=1))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(conv(3, 9), conv(9, 12))
        self.layer0 = self.backbone[0]
        self.layer1 = self.backbone[1]
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        return self.head(self.layer1(self.layer0(x)))


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("a.0",))
class HiddenInAList(nn.Module):
    """What stands in a plain list is no parameter of the network: it is fixed, and what it touches stays."""

    def __init__(self):
        super().__init__()
        self.a, self.c = conv(3, 10), conv(8, 16)
        self.hidden = [nn.Conv2d(10, 8, 1)]
        self.hidden[0].requires_grad_(False)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        return self.head(self.c(self.hidden[0](self.a(x))))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class RegisteredAndListed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = []
        for i, (cin, cout) in enumerate([(3, 7), (7, 11), (11, 9)]):
            layer = conv(cin, cout)
            self.add_module(f"layer{i}", layer)
            self.layers.append(layer)
        self.head = nn.Conv2d(9, 2, 1)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@case(1, 3, 8, 8, other=(2, 3, 8, 8))
class ParameterCollections(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([torch.randn(12, 3, 3, 3), torch.randn(10, 12, 3, 3)])
        self.extra = nn.ParameterDict({"gamma": torch.ones(10), "beta": torch.zeros(10, 1, 1)})
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x):
        for weight in self.weights:
            x = F.relu(F.conv2d(x, weight, padding=1))
        return self.head(x * self.extra["gamma"].view(1, -1, 1, 1) + self.extra["beta"])


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class PerChannelBuffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 12, 3, padding=1)
        self.register_buffer("mean", torch.rand(1, 10, 1, 1))
        self.register_buffer("scale", torch.rand(12))
        self.register_buffer("seen", torch.tensor(0))
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        x = self.b(torch.relu(self.a(x) - self.mean))
        return self.head(torch.relu(x * self.scale[None, :, None, None]))


@case(1, 3, 8, 8, other=(2, 3, 8, 8))
class TiedWeights(nn.Module):
    """An autoencoder whose decoder is its encoder, transposed; and one parameter under two modules."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.down = nn.Conv2d(8, 14, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.two.weight = self.one.weight
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = torch.relu(self.down(self.stem(x)))
        x = F.conv_transpose2d(x, self.down.weight, padding=1)
        return self.head(self.two(torch.relu(self.one(x))))


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class RecurrentBlocks(nn.Module):
    """R2U-Net: one convolution and its norm run several times."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.head = nn.Conv2d(3, 12, 1), conv(12, 12), nn.Conv2d(12, 2, 1)

    def forward(self, x):
        x = self.first(x)
        h = self.again(x)
        for _ in range(2):
            h = self.again(x + h)
        return self.head(x + h)


@case(1, 3, 16, 16, other=(2, 3, 16, 16))
class SharedHeadOverLevels(nn.Module):
    """RetinaNet: one head over all levels, a norm of its own for each."""

    def __init__(self):
        super().__init__()
        self.c = nn.ModuleDict({"p2": conv(3, 8), "p3": conv(8, 12, stride=2), "p4": conv(12, 16, stride=2)})
        self.lateral = nn.ModuleDict({k: nn.Conv2d(n, 10, 1) for k, n in (("p2", 8), ("p3", 12), ("p4", 16))})
        self.tower = nn.Conv2d(10, 10, 3, padding=1)
        self.norms = nn.ModuleDict({k: nn.BatchNorm2d(10) for k in self.lateral})
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x):
        out = {}
        for name, stage in self.c.items():
            x = stage(x)
            out[name] = self.lateral[name](x)
        names = list(out)
        for low, high in zip(names[-2::-1], names[:0:-1], strict=True):
            out[low] = out[low] + F.interpolate(out[high], size=out[low].shape[-2:], mode="nearest")
        return {k: self.head(F.relu(self.norms[k](self.tower(v)))) for k, v in out.items()}


@case(1, 3, 16, 16, other=(2, 3, 16, 16), train=True)
class DeepSupervision(nn.Module):
    def __init__(self, deep=True):
        super().__init__()
        self.deep = deep
        self.e = nn.ModuleList([conv(3, 8), conv(8, 12), conv(12, 15)])
        self.heads = nn.ModuleList([nn.Conv2d(c, 2, 1) for c in (8, 12, 15)])

    def forward(self, x):
        outs = []
        for e, head in zip(self.e, self.heads, strict=True):
            x = e(x)
            if self.training and self.deep:
                outs.append(head(x))
        if self.training:
            return outs[::-1]
        return self.heads[-1](x)


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("b.0", "fc"))
class WidthsByLiteral(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 16), conv(16, 20)
        self.head = nn.Conv2d(20, 2, 1)
        self.fc = nn.Linear(16, 20)

    def forward(self, x):
        x = self.a(x)
        b, c, _, _ = x.size()
        gate = torch.sigmoid(self.fc(x.mean(dim=(2, 3)).view(b, c))).view(b, 20, 1, 1)
        return self.head(self.b(x) * gate)


@case(2, 10, 10, pinned=("mix",))
class ChannelsEqualBatchAndSpace(nn.Module):
    """Channels, length and later batch are all of one size: ties by size would be wrong."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(10, 10, 3, padding=1), nn.Conv1d(10, 10, 3, padding=1)
        self.mix = nn.Linear(10, 10)
        self.head = nn.Conv1d(10, 2, 1)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.mix(x))
        x = x.transpose(1, 2) + torch.relu(self.b(x)).transpose(1, 2)
        return self.head(x.transpose(1, 2))
