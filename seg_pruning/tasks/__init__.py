"""What a network is trained for: the LightningModules."""

from .base import BaseTask, check_checkpoint
from .mask_writer import MaskWriter
from .memory_format import ChannelsLast
from .prunable import PrunableCheckpoints
from .semantic import SemanticSegmentation

__all__ = [
    "BaseTask",
    "ChannelsLast",
    "MaskWriter",
    "PrunableCheckpoints",
    "SemanticSegmentation",
    "check_checkpoint",
]
