"""Networks drawn at random: graphs of every kind of coupling, on maps of one spatial size."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

WIDTHS = (4, 6, 7, 9, 12)


class Step(nn.Module):
    """One op that reads a map of `width` channels, perhaps another, and gives maps of `widths` channels."""

    def __init__(self, width: int, other: int, choice: int):
        super().__init__()
        self.widths = [width]

    def forward(self, x, y):
        raise NotImplementedError


class Conv(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.widths = [WIDTHS[choice % len(WIDTHS)]]
        self.conv = nn.Conv2d(
            width, self.widths[0], 1 + 2 * (choice % 2), padding=choice % 2, bias=choice % 3 > 0
        )

    def forward(self, x, y):
        return [F.relu(self.conv(x))]


class Grouped(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        groups = next(g for g in (3, 2, 7, 5, width) if width % g == 0)
        self.widths = [groups * (2 + choice % 3)]
        kind = (nn.Conv2d, nn.ConvTranspose2d)[choice % 2]
        self.conv = kind(width, self.widths[0], 3, padding=1, groups=groups)

    def forward(self, x, y):
        return [torch.sigmoid(self.conv(x))]


class Paths(Step):
    """Groups that only layers of their own read, whose number may fall; perhaps with norms of as many."""

    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        groups = 2 + choice % 4
        wide, inner = groups * (1 + choice % 3), groups * (1 + choice % 5)
        self.widths = [WIDTHS[choice % len(WIDTHS)]]
        make = (lambda: nn.GroupNorm(groups, inner), lambda: nn.BatchNorm2d(inner), nn.Identity)
        kind = (nn.Conv2d, nn.ConvTranspose2d)[choice % 2]
        self.squeeze = nn.Conv2d(width, wide, 1)
        self.paths, self.norm = kind(wide, inner, 3, padding=1, groups=groups), make[choice % 3]()
        self.gate = nn.Conv2d(inner, inner, 1, groups=groups if choice % 4 == 0 else 1)
        self.expand = nn.Conv2d(inner, self.widths[0], 1)

    def forward(self, x, y):
        x = torch.sigmoid(self.norm(self.paths(torch.sigmoid(self.squeeze(x)))))
        return [self.expand(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))]


class Depthwise(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.widths = [width * (1 + choice % 2)]
        self.conv = nn.Conv2d(width, self.widths[0], 3, padding=1, groups=width)

    def forward(self, x, y):
        return [torch.sigmoid(self.conv(x))]


class Transposed(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.widths = [WIDTHS[choice % len(WIDTHS)]]
        self.conv = nn.ConvTranspose2d(width, self.widths[0], 3, padding=1)

    def forward(self, x, y):
        return [F.gelu(self.conv(x))]


class Linear(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.widths = [WIDTHS[choice % len(WIDTHS)]]
        self.linear = nn.Linear(width, self.widths[0])

    def forward(self, x, y):
        return [F.silu(self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))]


class Norm(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        groups = next(g for g in (3, 2, 7, 5, width) if width % g == 0)
        make = (
            lambda: nn.BatchNorm2d(width),
            lambda: nn.GroupNorm(groups, width),
            lambda: nn.LayerNorm(width),
        )
        self.norm, self.last = make[choice % 3](), choice % 3 == 2

    def forward(self, x, y):
        if self.last:
            return [self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]
        return [self.norm(x)]


class Add(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.match = nn.Conv2d(other, width, 1) if other != width else nn.Identity()

    def forward(self, x, y):
        return [x + self.match(y)]


class Concat(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.twice = choice % 3 == 0
        self.widths = [2 * width if self.twice else width + other]

    def forward(self, x, y):
        return [torch.cat([x, x if self.twice else y], 1)]


class Split(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.lengths = [width // 2, width - width // 2]
        self.widths = list(self.lengths)
        self.sliced = choice % 2 == 0 and width % 2 == 0

    def forward(self, x, y):
        if self.sliced:
            half = x.shape[1] // 2
            return [x[:, :half], x[:, half:]]
        return list(torch.split(x, self.lengths, dim=1))


class Shuffle(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.groups = next(g for g in (2, 3, 7, 5, width) if width % g == 0)

    def forward(self, x, y):
        n, c, h, w = x.shape
        return [x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)]


class Pixels(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.fold = width % 4 == 0 and width > 4
        self.widths = [width // 4 if self.fold else width * 4]

    def forward(self, x, y):
        if self.fold:
            return [F.avg_pool2d(F.pixel_shuffle(x, 2), 2)]
        return [F.interpolate(F.pixel_unshuffle(x, 2), scale_factor=2)]


class Gate(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.gate = nn.Conv2d(other, 1 if choice % 2 else width, 1)

    def forward(self, x, y):
        return [x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))]


class Attention(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.heads = next(h for h in (3, 2, 7, 5, width) if width % h == 0)
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(other, width), nn.Linear(other, width)
        self.fused = choice % 2 == 0

    def forward(self, x, y):
        n, _, h, w = x.shape
        x, y = x.flatten(2).transpose(1, 2), y.flatten(2).transpose(1, 2)
        parts = (self.q(x), self.k(y), self.v(y))
        q, k, v = (t.view(n, h * w, self.heads, -1).transpose(1, 2) for t in parts)
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.transpose(-2, -1)).mul(0.1).softmax(-1) @ v
        return [out.transpose(1, 2).reshape(n, h * w, -1).transpose(1, 2).unflatten(2, (h, w))]


class Twice(Step):
    def __init__(self, width, other, choice):
        super().__init__(width, other, choice)
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x, y):
        return [self.conv(torch.tanh(self.conv(x)))]


STEPS = [
    Conv,
    Grouped,
    Paths,
    Depthwise,
    Transposed,
    Linear,
    Norm,
    Add,
    Concat,
    Split,
    Shuffle,
    Pixels,
    Gate,
    Attention,
    Twice,
]
MAX_WIDTH = 60


class RandomNetwork(nn.Module):
    """Runs a program: each step reads two of the maps so far and adds its own; a head reads the last ones."""

    def __init__(self, program: list[tuple[type[Step], int, int, int]]):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        widths, self.sources, steps = [12], [], []
        for kind, a, b, choice in program:
            # Late maps more often: deep networks rather than wide ones.
            i, j = len(widths) - 1 - a % min(3, len(widths)), b % len(widths)
            if widths[i] > MAX_WIDTH or widths[i] < 2:
                continue
            step = kind(widths[i], widths[j], choice)
            steps.append(step)
            self.sources.append((i, j))
            widths.extend(step.widths)
        self.steps = nn.ModuleList(steps)
        self.head = nn.Conv2d(sum(widths[-3:]), 2, 1)

    def forward(self, x):
        maps = [torch.sigmoid(self.stem(x))]
        for step, (i, j) in zip(self.steps, self.sources, strict=True):
            maps.extend(step(maps[i], maps[j]))
        return self.head(torch.cat(maps[-3:], 1))


small = st.integers(0, 11)
programs = st.lists(st.tuples(st.sampled_from(STEPS), small, small, small), min_size=2, max_size=10)
