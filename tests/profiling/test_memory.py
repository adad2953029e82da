import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from seg_pruning.profiling import peak_memory
from seg_pruning.surgery.errors import PruningError
from tests.networks import NETWORKS
from tests.surgery.living import peak


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_is_that_of_the_storages_that_live(name: str) -> None:
    model = NETWORKS[name]().eval()
    assert peak_memory(model, model.example()) == peak(model, model.example())


def test_the_peak_of_a_whole_network() -> None:
    model, image = smp.Unet("resnet18", encoder_weights=None), torch.randn(2, 3, 64, 64)
    assert peak_memory(model.train(), image) == peak(model.eval(), image) > 2 * 64 * 64 * 16 * 4


def test_modes_are_kept_and_nothing_is_no_input() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    state = torch.get_rng_state()
    assert peak_memory(model, torch.zeros(3, 2)) == 3 * 2 * 4
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(PruningError, match="tensor"):
        peak_memory(model, ())
