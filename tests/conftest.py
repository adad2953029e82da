import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no test asks the network for a newer version

from hypothesis import settings

settings.register_profile(
    "default", deadline=None, print_blob=True
)  # no test is timed; a failure prints its seed
settings.load_profile("default")
