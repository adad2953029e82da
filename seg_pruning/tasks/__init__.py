"""What a network is trained for: the LightningModules."""

from .base import BaseTask
from .semantic import SemanticSegmentation

__all__ = ["BaseTask", "SemanticSegmentation"]
