"""What the README shows runs."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def block_of(heading: str) -> str:
    """The first Python below a heading."""
    return re.search(rf"^#+ {heading}\n.*?```python\n(.*?)```", TEXT, flags=re.DOTALL | re.MULTILINE)[1]


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_all_of_it_is_python_whose_imports_exist(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(getattr(module, name.name) for name in node.names)


def test_a_plain_torch_loop():
    code = block_of("In a plain torch loop")
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith("import")]) <= 10
    torch.manual_seed(0)
    hidden = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    model = nn.Sequential(*hidden, nn.ReLU(), nn.Conv2d(16, 1, 1))
    images = torch.rand(4, 3, 8, 8)
    loader = [(images, (images[:, :1] > 0.5).float())] * 4
    parameters = list(model.parameters())
    dense = sum(p.numel() for p in parameters)
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    losses = []

    def loss(logits, masks):
        found = nn.functional.binary_cross_entropy_with_logits(logits, masks)
        losses.append(found.item())
        return found

    exec(code, {"model": model, "images": images, "loader": loader, "loss": loss, "optimizer": optimizer})
    assert 0.2 * dense < sum(p.numel() for p in parameters) <= 0.7**3 * dense
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in parameters)
    assert optimizer.state[parameters[0]]["step"] == 12 * 4
    assert sum(losses[-4:]) < sum(losses[:4]) / 2
