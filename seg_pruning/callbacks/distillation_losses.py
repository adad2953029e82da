"""How far a network is from its teacher: pure functions of what both answer."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

Activation: TypeAlias = Literal["auto", "sigmoid", "softmax"]


def logit_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0, activation: Activation = "auto"
) -> Tensor:
    """Divergence of the student's softened answer from the teacher's, times the square of the temperature.

    Hinton et al. 2015 (https://arxiv.org/abs/1503.02531): KL(teacher || student) of probabilities of
    logits / temperature; the square keeps gradients as large as those of hard targets. In float32.

    Args:
        student: logits `(N, C, ...)`.
        teacher: logits of the same shape.
        temperature: above 0.
        activation: "softmax" compares the distributions over `C` at each place, "sigmoid" each logit by
            itself, summed over neither; "auto" is sigmoid for one channel and softmax for more.

    Returns:
        A scalar, at least 0: the mean over all places, and 0 where both are the same.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[1.0, -2.0]]]])
        >>> logit_loss(logits, logits, temperature=2.0).item()
        0.0
    """
    soft, target = student.float() / temperature, teacher.float() / temperature
    if activation == "softmax" or (activation == "auto" and student.shape[1] > 1):
        logs = F.log_softmax(soft, dim=1), F.log_softmax(target, dim=1)
        divergence = F.kl_div(*logs, reduction="none", log_target=True).sum(1).mean()
    else:
        wanted = target.sigmoid()
        both = [F.binary_cross_entropy_with_logits(logits, wanted) for logits in (soft, target)]
        divergence = both[0] - both[1]
    return divergence * temperature**2


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of two layers' attention maps, which does not depend on how many channels they have.

    Attention transfer, Zagoruyko & Komodakis 2017 (https://arxiv.org/abs/1612.03928): the map of a sample is
    the mean over channels of squared values, scaled to unit L2 norm; the loss is the mean squared difference
    of two maps. In float32.

    Args:
        student: `(N, C, ...)`.
        teacher: `(N, D, ...)`, of the same extent.

    Example:
        >>> import torch
        >>> wide = torch.rand(2, 8, 4, 4)
        >>> attention_loss(wide.repeat(1, 2, 1, 1), wide).item() < 1e-12
        True
    """
    return (_attention(student) - _attention(teacher)).square().mean()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.float().square().mean(1).flatten(1), dim=1)
