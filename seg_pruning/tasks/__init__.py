"""What a network is trained for: the LightningModules."""

from .base import BaseTask, check_checkpoint
from .mask_writer import MaskWriter
from .semantic import SemanticSegmentation

__all__ = ["BaseTask", "MaskWriter", "SemanticSegmentation", "check_checkpoint"]
