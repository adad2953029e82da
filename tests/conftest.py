import os
import sys

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no test asks the network for a newer version

import pytest
from hypothesis import settings

settings.register_profile(
    "default", deadline=None, print_blob=True
)  # no test is timed; a failure prints its seed
settings.load_profile("default")


@pytest.fixture(autouse=True)
def no_wandb_of_another_test():
    """Its service remembers the environment that it was first used in."""
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
