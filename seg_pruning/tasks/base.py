"""What all tasks share: optimizer, scheduler, plain hyperparameters, clear words for a wrong checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeAlias

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from typing_extensions import override

from seg_pruning.surgery.errors import PruningError

from .networks import MODULE_MARK
from .prunable import PrunableCheckpoints

Scheduler: TypeAlias = Literal["cosine"] | LRSchedulerCallable | None
Location: TypeAlias = torch.device | str | None


class BaseTask(PrunableCheckpoints, L.LightningModule, ABC):
    """A LightningModule with one network, whose checkpoints load with ``weights_only=True`` and by name.

    A subclass's constructor calls `remember_arguments`, sets `network` and whatever its losses and metrics
    need, and calls `configure_losses` and `configure_metrics`.

    Args:
        optimizer: Makes the optimizer from the parameters.
        scheduler: ``"cosine"`` falls from the optimizer's learning rate to 0 over all steps of the fit; or
            what makes a scheduler from the optimizer, stepped once an epoch; or ``None``.
    """

    network: nn.Module

    def __init__(
        self, *, optimizer: OptimizerCallable = torch.optim.AdamW, scheduler: Scheduler = None
    ) -> None:
        super().__init__()
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self._loaded_hparams: Mapping[str, Any] = {}

    @abstractmethod
    def configure_losses(self) -> None:
        """Sets the losses."""

    @abstractmethod
    def configure_metrics(self) -> None:
        """Sets the metrics."""

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Gives the network's output for images ``(N, C, H, W)``."""
        output: Tensor = self.network(images)
        return output

    def remember_arguments(self, **objects: object) -> None:
        """Stores the constructor's arguments as hyperparameters; call it in the constructor.

        Checkpoints must hold plain types only, or ``torch.load(weights_only=True)`` refuses them. The command
        line hands over the config, which is plain. From Python, arguments that are live objects are left out:
        a loaded task gets the default in their place, and a module, which has none, leaves a mark that says
        so when it is missed.

        Args:
            objects: The arguments that may be live objects, by name.
        """
        live = [name for name, value in objects.items() if not isinstance(value, str | None)]
        self.save_hyperparameters(ignore=live)
        if "_instantiator" in self.hparams:  # the command line's own, plain throughout
            self.save_hyperparameters()
            return
        marks = {name: _mark(objects[name]) for name in live if isinstance(objects[name], nn.Module)}
        if marks:
            self.save_hyperparameters(marks)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Gives the optimizer, with its scheduler where there is one."""
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        if isinstance(self.make_scheduler, str):
            cosine = CosineAnnealingLR(optimizer, T_max=self._steps_of_fit())
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}
        return self._with_epoch_scheduler(optimizer, self.make_scheduler)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the checkpoint says about its network, for the message if it does not fit."""
        self._loaded_hparams = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        super().on_load_checkpoint(checkpoint)

    @override
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads weights as torch does, and says which tensors differ when the network is another.

        Raises:
            PruningError: If keys or shapes differ; names both networks, up to ten tensors and the remedy.
        """
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            differing = _differences(self.state_dict(), state_dict)
            if not differing:
                raise
            raise PruningError(self._other_network(differing)) from error

    @classmethod
    @override
    def load_from_checkpoint(  # type: ignore[override] # Lightning's is a descriptor
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Location = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **arguments: Any,
    ) -> Self:
        """Gives the task of a checkpoint, with its network and weights.

        Args:
            checkpoint_path: The file.
            map_location: The device; by default the one that it was saved from.
            hparams_file: A file of hyperparameters to use in place of the checkpoint's.
            strict: Whether all keys must match.
            weights_only: As in ``torch.load``.
            arguments: Arguments of the constructor to use in place of the checkpoint's.

        Raises:
            PruningError: If there is no such file, or the weights do not fit the network.
        """
        if isinstance(checkpoint_path, str | Path) and "://" not in str(checkpoint_path):
            check_checkpoint(checkpoint_path)
        try:
            task: Self = super().load_from_checkpoint(
                checkpoint_path, map_location, hparams_file, strict, weights_only, **arguments
            )
        except PruningError as error:
            raise PruningError(f"{checkpoint_path}: {error}") from error
        return task

    def _other_network(self, differing: list[str]) -> str:
        trainer = self._trainer
        file = f"{trainer.ckpt_path}: " if trainer is not None and trainer.ckpt_path else ""
        shown = "\n  ".join(differing[:10])
        return (
            f"{file}these weights are of another network. They are of {_describe(self._loaded_hparams)}; "
            f"this task has {_describe(self.hparams)}. {len(differing)} tensors differ, of which the first "
            f"are\n  {shown}\nUse the config.yaml of the run that wrote the file, or "
            f"{type(self).__name__}.load_from_checkpoint(path), which builds the network that the file names."
        )

    def _steps_of_fit(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise PruningError(
                'scheduler="cosine" falls over the whole fit, and this fit has no end: set max_epochs or '
                "max_steps of the trainer."
            )
        return int(steps)

    @staticmethod
    def _with_epoch_scheduler(optimizer: Optimizer, make: LRSchedulerCallable) -> OptimizerLRScheduler:
        scheduler = make(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):  # Lightning's own, which carries its monitor
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor},
            }
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            monitor = "val/loss" if scheduler.mode == "min" else "val/dice"
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def check_checkpoint(path: str | Path) -> None:
    """Passes when the file exists.

    Raises:
        PruningError: If it does not; names up to ten checkpoints that lie beside it.
    """
    path = Path(path)
    if path.is_file():
        return
    folder = path.parent
    beside = sorted(file.name for file in folder.glob("*.ckpt"))[:10] if folder.is_dir() else []
    found = f"{folder} holds {', '.join(beside)}" if beside else f"{folder} holds no checkpoint"
    raise PruningError(
        f"There is no checkpoint {path}. {found}. A run keeps its own in <run folder>/checkpoints."
    )


def _mark(value: object) -> str:
    return f"{MODULE_MARK}{type(value).__module__}.{type(value).__qualname__}"


def _describe(hparams: Mapping[str, Any]) -> str:
    told = [
        f"{key} {hparams[key]}" for key in ("arch", "encoder", "in_channels", "classes") if key in hparams
    ]
    return ", ".join(told) or "a network that the file does not name"


def _differences(own: Mapping[str, Tensor], loaded: Mapping[str, Any]) -> list[str]:
    """Gives one line for each tensor whose presence or shape differs, in the order of the network."""
    lines = []
    for key in dict.fromkeys((*own, *loaded)):
        mine, other = _shape(own.get(key)), _shape(loaded.get(key))
        if mine != other:
            lines.append(f"{key}: {other or 'absent'} in the file, {mine or 'absent'} in the task")
    return lines


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else ""
