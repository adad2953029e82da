"""Every decoder of segmentation_models_pytorch with an encoder of every family: `python -m tests.zoo`."""
