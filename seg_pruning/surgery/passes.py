"""How a network is run for a look at it: its modes, its randomness, its tensors."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.torch_version import TorchVersion


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within, every module is in eval mode and no gradient is recorded; then each has its own mode again."""
    with _own_modes(model), torch.no_grad():
        model.eval()
        yield


@contextmanager
def train_mode(model: nn.Module) -> Iterator[None]:
    """Within, all but the norms is in train mode (one image is too few for them); no gradient is recorded."""
    with _own_modes(model), torch.no_grad():
        model.train()
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.eval()
        yield


@contextmanager
def _own_modes(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            if module.training != mode:  # torch's own setter is slow
                module.training = mode


@contextmanager
def repeatable() -> Iterator[None]:
    """Within, the same random numbers each time, no compiled code, no autocast; generators are untouched.

    Nor does float32 mean less than that, as it does for convolutions on newer GPUs (TF32), and after
    `torch.set_float32_matmul_precision`.
    """
    with ExitStack() as stack:
        stack.enter_context(_full_precision())
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for device in {"cpu", *(["cuda"] if torch.cuda.is_available() else [])}:
            stack.enter_context(torch.autocast(device, enabled=False))
        torch.manual_seed(0)
        yield


@contextmanager
def _full_precision() -> Iterator[None]:
    old = TorchVersion(torch.__version__) < "2.9"  # had two switches, and no others
    backends: Any = torch.backends  # torch does not type all of it
    cudnn, matmul, cpu = backends.cudnn, backends.cuda.matmul, backends.mkldnn
    switches = [cudnn, matmul] if old else [cudnn.conv, cudnn.rnn, matmul, cpu.conv, cpu.matmul]
    name, full = ("allow_tf32", False) if old else ("fp32_precision", "ieee")
    held = [getattr(switch, name) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, name, full)
        yield
    finally:
        for switch, value in zip(switches, held, strict=True):
            setattr(switch, name, value)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by the first name under which they stand."""
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))
