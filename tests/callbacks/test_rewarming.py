import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau

from seg_pruning.callbacks.rewarming import scale_rates_

SCHEDULERS = {
    "exponential": lambda o: ExponentialLR(o, 0.9),
    "cosine": lambda o: CosineAnnealingLR(o, 8),
    "one cycle": lambda o: OneCycleLR(o, 0.5, total_steps=8, cycle_momentum=False),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=0, factor=0.5),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_are_scaled_and_no_scheduler_notices(name):
    """Plain SGD moves by the rate: the moves tell which rate each step was made with."""

    def run(factors: list[float] | None) -> tuple[list[float], list[float]]:
        weight = nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        scheduler = SCHEDULERS[name](optimizer)
        if factors is not None:
            scale_rates_([optimizer], lambda: factors[len(moves)])
        moves, rates = [], []
        for _ in range(6):
            before = weight.item()
            weight.grad = torch.ones(())
            optimizer.step()
            moves.append(before - weight.item())
            scheduler.step(*([1.0] if name == "plateau" else []))
            rates.append(optimizer.param_groups[0]["lr"])
        return moves, rates

    factors = [1.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    plain, rates = run(None)
    scaled, same = run(factors)
    assert rates == same
    assert scaled == pytest.approx([move * factor for move, factor in zip(plain, factors, strict=True)], 1e-5)


def test_handles_end_it():
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for handle in scale_rates_([optimizer], lambda: 0.5):
        handle.remove()
    weight.grad = torch.ones(())
    optimizer.step()
    assert weight.item() == pytest.approx(-0.1)
