"""Networks whose code matters: shared modules, tied weights, sizes, all kinds of inputs and outputs."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from tests.networks.net import Net, conv


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
