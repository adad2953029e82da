"""The pruned network learns from the dense one."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, get_args
from weakref import ref

import lightning as L
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from typing_extensions import override

from seg_pruning.callbacks.cutting import Cutting
from seg_pruning.callbacks.dense import DENSE_CHECKPOINT, DenseListener, checkpoint_folder
from seg_pruning.callbacks.distillation_losses import Activation, attention_loss, logit_loss
from seg_pruning.callbacks.options import check_not_negative, is_number
from seg_pruning.callbacks.tap import Call, Tap
from seg_pruning.callbacks.teacher import frozen_copy, read_teacher
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import flatten_tensors


class Distillation(DenseListener):
    """Adds to the loss of training how far the network is from the dense one, from the first cut on.

    The teacher is a frozen copy of the dense network in eval mode. It is no part of the module: no optimizer
    moves it and no checkpoint holds it; a run that goes on builds it from the checkpoint of the dense network
    that `IterativePruning` leaves beside the others. Name the two callbacks in any order.

    The module's `training_step` is wrapped while it trains: what its forward is called with and answers there
    is noted, the teacher is called with the same, and the sum goes where the module's own loss went: through
    mixed precision, accumulation and clipping. The term is logged as ``train/distillation``.

    Args:
        weight: of the logits' term, 0 or more. The module's own loss keeps its weight of 1, and so does this
            by default: both are of the order of a cross entropy.
        temperature: above 0; higher ones compare also what the teacher holds for unlikely. 2 by default,
            since masks have few classes, all of which are likely somewhere.
        features: names of layers, below `of`, whose attention maps are compared too; none by default. Their
            number of channels does not matter.
        feature_weight: of the mean of these terms, 0 or more; 1000 by default, as in the paper
            (Zagoruyko & Komodakis 2017, https://arxiv.org/abs/1612.03928).
        activation: what probabilities are made with: ``softmax``, ``sigmoid``, or ``auto``, the default:
            sigmoid for one channel, softmax for more. Say ``sigmoid`` where several labels may hold at once.
        of: name of the part of the module whose calls are compared; by default the module itself. Needed
            where `training_step` calls a part, such as ``self.net(x)``, in place of ``self(x)``.
        teacher: a checkpoint to learn from, from the first step on; by default the network of just before the
            first cut.

    Raises:
        PruningError: a number is out of range; in `setup`, the module optimizes by hand, or there is neither
            `IterativePruning` nor a `teacher`; in training, `of` is never called, a name does not exist or
            there is no checkpoint of the dense network to go on with.

    Example:
        >>> from seg_pruning.callbacks import IterativePruning
        >>> callbacks = [IterativePruning(budget={"macs": 0.3}), Distillation(temperature=4.0)]
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        temperature: float = 2.0,
        features: Sequence[str] = (),
        feature_weight: float = 1000.0,
        activation: Activation = "auto",
        of: str = "",
        teacher: str | None = None,
    ) -> None:
        check_not_negative("weight", weight)
        check_not_negative("feature_weight", feature_weight)
        if not is_number(temperature) or temperature <= 0:
            raise PruningError(f"expected temperature to be above 0, but got {temperature!r}")
        if activation not in get_args(Activation):
            raise PruningError(
                f"expected activation to be one of {get_args(Activation)}, but got {activation!r}"
            )
        if isinstance(features, str) or not isinstance(features, Sequence):
            raise PruningError(f"expected features to be a list of names, but got {features!r}")
        self.weight, self.feature_weight, self.temperature = weight, feature_weight, temperature
        self.features = tuple(features)
        self.activation = activation
        self.of = of
        self.path = teacher
        self.teacher: L.LightningModule | None = None
        self._active = False
        self._of: ref[L.LightningModule] | None = None
        self._taps: dict[str, Tap] = {}
        self._unwrap: Callable[[], object] | None = None

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses what cannot be taught; a teacher of another module is forgotten."""
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise PruningError(
                f"{type(pl_module).__name__} optimizes by hand: its training_step calls backward itself, and "
                "a loss cannot be added from outside. Set automatic_optimization=True, or add the term in it"
            )
        self._check_taught(trainer)
        if self._of is None or self._of() is not pl_module:  # a teacher of another training is none here
            self.teacher, self._active, self._of = None, False, ref(pl_module)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finds the teacher, where there is one already, and wraps the training step."""
        self._stop()
        self._taps["student"] = self._tap(pl_module)
        if self.path is not None:
            self._learn_from(read_teacher(pl_module, Path(self.path), self._watchers))
        elif self._active and trainer.ckpt_path:
            self._learn_from(read_teacher(pl_module, self._beside(trainer), self._watchers))
        elif self._active and self.teacher is not None:
            self._learn_from(self.teacher.to(pl_module.device))  # the same module is trained on
        else:
            self.teacher = None
        own = pl_module.training_step
        given = vars(pl_module).get("training_step")

        @wraps(own)
        def step(*args: Any, **kwargs: Any) -> STEP_OUTPUT:
            return self._step(pl_module, own, *args, **kwargs)

        vars(pl_module)["training_step"] = step
        self._unwrap = lambda: _put_back(pl_module, given)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Unwraps the training step."""
        self._stop()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Unwraps it where training has not ended by itself."""
        self._stop()

    @override
    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Unwraps it, so that the module can be used on."""
        self._stop()

    @override
    def state_dict(self) -> dict[str, Any]:
        """Whether there is a teacher; its weights stand in the dense checkpoint."""
        return {"active": self._active}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._active = state_dict["active"]

    @override
    def before_first_cut(self, module: L.LightningModule) -> None:
        """Takes the dense network as teacher, unless another was given."""
        if self.path is None:
            self._learn_from(frozen_copy(module, self._watchers))

    @property
    def _watchers(self) -> tuple[object, ...]:
        return (self, *self._taps.values())

    def _learn_from(self, teacher: L.LightningModule) -> None:
        if "teacher" in self._taps:
            self._taps["teacher"].close()
        self.teacher, self._active = teacher, True
        self._taps["teacher"] = self._tap(teacher)

    def _check_taught(self, trainer: L.Trainer) -> None:
        """Raises where no teacher will ever come."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined] # Lightning does not type it
        if self.path is None and not any(isinstance(callback, Cutting) for callback in callbacks):
            raise PruningError(
                "Distillation learns from the network of before the first cut, and nothing cuts this one: "
                "add IterativePruning to the callbacks, or give a checkpoint, Distillation(teacher=...)"
            )

    def _tap(self, module: L.LightningModule) -> Tap:
        try:
            return Tap(module.get_submodule(self.of), self.features)
        except AttributeError as error:
            known = [name for name, _ in module.get_submodule("").named_modules() if name]
            raise PruningError(
                f"Distillation cannot find {self.of!r} or one of {self.features} below it: {error}; "
                f"the module has {', '.join(known[:10])}"
            ) from error

    def _step(
        self, module: L.LightningModule, own: Callable[..., STEP_OUTPUT], *args: Any, **kwargs: Any
    ) -> STEP_OUTPUT:
        """One training step with the term added."""
        if self.teacher is None:
            return own(*args, **kwargs)
        student = self._taps["student"]
        student.open = True
        try:
            output = own(*args, **kwargs)
            calls = list(student.calls)
        finally:
            student.open = False
            student.calls.clear()
        return output if output is None else _added(output, self._term(module, calls))

    def _term(self, module: L.LightningModule, calls: list[Call]) -> Tensor:
        if not calls:
            raise PruningError(
                f"training_step never calls {self.of or 'the module itself'}: name the part that it calls "
                "with Distillation(of=...)"
            )
        terms = [self._distance(call, self._ask(call)) for call in calls]
        term = torch.stack(terms).mean()
        size = flatten_tensors(calls[0].output)[0].shape[0]
        module.log("train/distillation", term.detach(), on_step=False, on_epoch=True, batch_size=size)
        return term

    @torch.no_grad()
    def _ask(self, call: Call) -> Call:
        """What the teacher answers to the same call."""
        assert self.teacher is not None
        tap = self._taps["teacher"]
        tap.open = True
        try:
            self.teacher.get_submodule(self.of)(*call.args, **call.kwargs)
            return tap.calls[0]
        finally:
            tap.open = False
            tap.calls.clear()

    def _distance(self, student: Call, teacher: Call) -> Tensor:
        pairs = zip(flatten_tensors(student.output), flatten_tensors(teacher.output), strict=True)
        logits = [
            logit_loss(mine, wanted, temperature=self.temperature, activation=self.activation)
            for mine, wanted in pairs
            if mine.is_floating_point() and mine.dim() > 1
        ]
        maps = [
            attention_loss(student.features[name], teacher.features[name])
            for name in self.features
        ]  # fmt: skip
        return self.weight * _mean(logits) + (self.feature_weight * _mean(maps) if maps else 0.0)

    def _beside(self, trainer: L.Trainer) -> Path:
        beside = Path(str(trainer.ckpt_path)).with_name(DENSE_CHECKPOINT)
        folder = checkpoint_folder(trainer)
        return beside if beside.is_file() or folder is None else folder / DENSE_CHECKPOINT

    def _stop(self) -> None:
        if self._unwrap is not None:
            self._unwrap()
            self._unwrap = None
        for tap in self._taps.values():
            tap.close()
        self._taps = {}


def _put_back(module: L.LightningModule, given: object) -> None:
    vars(module).pop("training_step", None)
    if given is not None:
        vars(module)["training_step"] = given


def _added(output: Any, term: Tensor) -> Any:
    """What a training step gave, with a term added to its loss."""
    if isinstance(output, Tensor):
        return output + term
    return {**output, "loss": output["loss"] + term}


def _mean(terms: list[Tensor]) -> Tensor:
    if not terms:
        raise PruningError("the network's output holds no logits (N, C, ...) that could be distilled")
    return torch.stack(terms).mean()
