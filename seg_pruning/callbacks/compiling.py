"""Code that torch compiles: where it is, and how it pauses while its calls are recorded."""

from __future__ import annotations

from contextlib import ExitStack

import lightning as L
import torch
from torch import nn
from torch._dynamo import OptimizedModule


def is_compiled(network: nn.Module, module: L.LightningModule) -> bool:
    """Whether hooks of `network`, in `module` or the same, run inside of compiled code.

    They would be compiled with it, or break it. What `torch.compile` returns is called from outside of it.
    """
    around = (each for each in module.modules() if network in each.modules())
    return any(_compiles(each, network) for each in around)


def _compiles(module: nn.Module, network: nn.Module) -> bool:
    # Nothing public says either: `Module.compile` leaves the first, Lightning the second.
    in_place = module._compiled_call_impl is not None or vars(module).get("_compiler_ctx") is not None
    return in_place or (isinstance(module, OptimizedModule) and module is not network)


class _Eager:
    """Who wants code to run as it is written; torch knows one wish for the whole process."""

    def __init__(self) -> None:
        self.holders = 0
        self._stance = ExitStack()

    def hold(self) -> None:
        """From now on compiled code runs as it was written, until all that held it released it."""
        if not self.holders:
            self._stance.enter_context(torch.compiler.set_stance("force_eager"))
        self.holders += 1

    def release(self) -> None:
        """Ends one `hold`."""
        self.holders -= 1
        if not self.holders:
            self._stance.close()


EAGER = _Eager()
