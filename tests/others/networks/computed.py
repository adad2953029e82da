"""States carried from step to step; weights, windows and places that are computed from the input."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.others.cases import case, conv


@case(1, 3, 16, 16, other=(2, 3, 16, 16), pinned=("",))
class SearchedCells(nn.Module):
    """A NAS cell: states in a list, edges by number, some skipped, weighted by learnt alphas."""

    def __init__(self, c=8):
        super().__init__()
        self.stem0, self.stem1 = conv(3, c), conv(c, c)
        self.ops = nn.ModuleList([conv(c, c, k) if k else nn.Identity() for k in (3, 0, 5, 1, 0, 3)])
        self.indices, self.concat = [0, 1, 0, 2, 1, 3], range(2, 5)
        self.alphas = nn.Parameter(torch.zeros(6))
        self.head = nn.Conv2d(3 * c, 2, 1)

    def forward(self, x):
        states = [self.stem0(x)]
        states.append(self.stem1(states[0]))
        for i in range(3):
            a, b = (
                self.ops[j](states[self.indices[j]]) * self.alphas[j].sigmoid() for j in (2 * i, 2 * i + 1)
            )
            states += [a + b]
        return self.head(torch.cat([states[i] for i in self.concat], dim=1))


@case(1, 4, 3, 12, 12, other=(2, 3, 3, 12, 12))
class ConvLSTM(nn.Module):
    """A video: one gate convolution for all steps, cut into four."""

    def __init__(self, hidden=10):
        super().__init__()
        self.hidden_dim = hidden
        self.encode, self.gates = conv(3, 8), nn.Conv2d(8 + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Conv2d(hidden, 2, 1)

    def forward(self, video):
        b, t, _, height, width = video.size()
        h = torch.zeros(b, self.hidden_dim, height, width, device=video.device)
        c = torch.zeros(b, self.hidden_dim, height, width, device=video.device)
        out = []
        for step in range(t):
            both = torch.cat([self.encode(video[:, step]), h], dim=1)
            cc_i, cc_f, cc_o, cc_g = torch.split(self.gates(both), self.hidden_dim, dim=1)
            c = torch.sigmoid(cc_f) * c + torch.sigmoid(cc_i) * torch.tanh(cc_g)
            h = torch.sigmoid(cc_o) * torch.tanh(c)
            out.append(self.head(h))
        return torch.stack(out, dim=1)


@case(1, 4, 3, 12, 12, other=(2, 3, 3, 12, 12))
class ConvGRU(nn.Module):
    def __init__(self, c=9):
        super().__init__()
        self.channels, self.stem = c, conv(3, c)
        self.ih = nn.Sequential(nn.Conv2d(c * 2, c * 2, 3, padding=1), nn.Sigmoid())
        self.hh = nn.Sequential(nn.Conv2d(c * 2, c, 3, padding=1), nn.Tanh())
        self.head = nn.Conv2d(c, 1, 1)

    def forward(self, video):
        b, t = video.shape[:2]
        frames = self.stem(video.flatten(0, 1)).unflatten(0, (b, t))
        h, out = torch.zeros_like(frames[:, 0]), []
        for x in frames.unbind(dim=1):
            r, z = self.ih(torch.cat([x, h], dim=1)).split(self.channels, dim=1)
            h = (1 - z) * h + z * self.hh(torch.cat([x, r * h], dim=1))
            out.append(h)
        return self.head(torch.stack(out, 1).flatten(0, 1)).unflatten(0, (b, t))


@case(2, 3, 12, 12, other=(3, 3, 12, 12))
class CondConv(nn.Module):
    """Each image its own mixture of kernels, by groups of the batch."""

    def __init__(self, cin=8, cout=10, k=4):
        super().__init__()
        self.K, self.in_planes, self.out_planes = k, cin, cout
        self.stem, self.route = conv(3, cin), nn.Linear(cin, k)
        self.weight = nn.Parameter(torch.randn(k, cout, cin, 3, 3))
        self.head = nn.Conv2d(cout, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        b, _, h, w = x.size()
        softmax_attention = F.softmax(self.route(x.mean((2, 3))), 1)
        x = x.reshape(1, -1, h, w)
        weight = torch.mm(softmax_attention, self.weight.view(self.K, -1))
        weight = weight.view(b * self.out_planes, self.in_planes, 3, 3)
        x = F.conv2d(x, weight, padding=1, groups=b)
        return self.head(torch.relu(x.view(b, self.out_planes, h, w)))


@case(1, 3, 12, 12, other=(2, 3, 12, 12), pinned=("kernel.1",))
class DynamicFilters(nn.Module):
    """CARAFE: kernels for each place, over windows of `unfold`."""

    def __init__(self, c=12, k=3):
        super().__init__()
        self.k, self.stem = k, conv(3, c)
        self.kernel = nn.Sequential(conv(c, 6, 1), nn.Conv2d(6, k * k, 3, padding=1))
        self.head = nn.Conv2d(c, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        weight = self.kernel(x).softmax(dim=1)
        windows = F.unfold(x, self.k, padding=self.k // 2).view(n, c, self.k * self.k, h, w)
        return self.head((windows * weight.unsqueeze(1)).sum(dim=2))


@case(1, 3, 12, 12, other=(2, 3, 12, 12), pinned=("flow",))
class FlowAlignment(nn.Module):
    """SFNet: one map is warped onto another by a field that is predicted."""

    def __init__(self, c=11):
        super().__init__()
        self.low, self.high = conv(3, c), conv(c, c, 3, 2)
        self.flow, self.head = nn.Conv2d(2 * c, 2, 3, padding=1, bias=False), nn.Conv2d(c, 2, 1)

    def forward(self, x):
        low = self.low(x)
        h, w = low.size()[2:]
        high = F.interpolate(self.high(low), size=(h, w), mode="bilinear", align_corners=True)
        flow = self.flow(torch.cat([low, high], 1)).permute(0, 2, 3, 1)
        ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        grid = torch.stack((xs, ys), 2).expand(x.shape[0], h, w, 2) + flow / torch.tensor([w, h])
        return self.head(low + F.grid_sample(high, grid, align_corners=True))


@case(1, 3, 12, 12, other=(2, 3, 12, 12))
class FourierUnit(nn.Module):
    """Fast Fourier convolution: real and imaginary parts are stacked as channels."""

    def __init__(self, c=10):
        super().__init__()
        self.stem, self.conv, self.head = conv(3, c), conv(2 * c, 2 * c, 1), nn.Conv2d(c, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        batch = x.shape[0]
        ffted = torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")
        ffted = torch.stack((ffted.real, ffted.imag), dim=-1).permute(0, 1, 4, 2, 3).contiguous()
        ffted = self.conv(ffted.view((batch, -1, *ffted.size()[3:])))
        ffted = ffted.view((batch, -1, 2, *ffted.size()[2:])).permute(0, 1, 3, 4, 2).contiguous()
        y = torch.fft.irfftn(
            torch.complex(ffted[..., 0], ffted[..., 1]), s=x.shape[-2:], dim=(-2, -1), norm="ortho"
        )
        return self.head(x + y)
