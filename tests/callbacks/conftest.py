import pytest
import torch


@pytest.fixture(autouse=True)
def _same_weights():
    """Networks of one test are built from one seed, whichever tests run."""
    torch.manual_seed(0)
