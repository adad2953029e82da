"""Compiled modules: whole, or a part of them. The compiler here only counts, so that nothing takes long."""

import lightning as L
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from seg_pruning.callbacks import IterativePruning, Recovery, Schedule
from seg_pruning.callbacks.compiling import EAGER, is_compiled
from tests.callbacks.interrupted import GOING_ON
from tests.callbacks.modules import Data, Stranger, fit, pruning, size, trainer_in

pytestmark = [*GOING_ON, pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")]
EVENTS = 3
LIMIT = 2


def compiled(way: str, backend: CompileCounter | str = "eager"):
    module = Stranger()
    if way == "part":  # renames its weights
        module.net = torch.compile(module.net, backend=backend, fullgraph=True)
    if way == "in place":
        module.net.compile(backend=backend, fullgraph=True)
    return torch.compile(module, backend=backend) if way == "whole" else module


class Counts(L.Callback):
    """How often the compiler was called until the end of each epoch."""

    def __init__(self, backend: CompileCounter) -> None:
        self.backend = backend
        self.at: list[int] = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.at.append(self.backend.frame_count)


def often() -> IterativePruning:
    """Looks at calls, layers and statistics too, none of which may break a graph."""
    schedule = Schedule("linear", recovery=Recovery(compensate=1, recalibrate=1))
    return pruning(schedule=schedule, every_n_epochs=1, end_epoch=EVENTS)


@pytest.fixture(autouse=True)
def _few_recompilations():
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=LIMIT):
        yield
    torch.compiler.reset()


@pytest.mark.parametrize("way", ["whole", "part", "in place"])
def test_what_is_compiled_stays_compiled_and_ends_like_what_is_not(tmp_path, way):
    """Twice as many cuts as the compiler has patience for; the oracle is the run that is not compiled."""
    backend = CompileCounter()
    counts = Counts(backend)
    torch.manual_seed(0)
    plain = Stranger()
    fit(tmp_path / "plain", plain, often(), max_epochs=EVENTS + 3, limit_val_batches=0)
    torch.manual_seed(0)
    module = compiled(way, backend)
    fit(tmp_path / "compiled", module, often(), counts, max_epochs=EVENTS + 3, limit_val_batches=0)
    assert size(module) == size(plain) <= 0.5 * size(Stranger())
    grown = [after - before for before, after in zip([0, *counts.at], counts.at, strict=False)]
    assert all(more > 0 for more in grown[: EVENTS + 1])
    assert grown[-1] == 0  # and between cuts nothing is compiled again
    for one, other in zip(plain.state_dict().values(), module.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_without_a_reset_the_compiler_gives_up(tmp_path, monkeypatch):
    """What the test above guards against."""
    backend = CompileCounter()
    counts = Counts(backend)
    monkeypatch.setattr("torch.compiler.reset", lambda: None)
    module = Stranger()
    module.net = torch.compile(module.net, backend=backend)
    fit(tmp_path, module, often(), counts, max_epochs=EVENTS + 3, limit_val_batches=0)
    assert counts.at[-1] == counts.at[-4] > 0


@torch.compiler.set_stance("force_eager")  # the names of weights are the same, and it is faster
@pytest.mark.parametrize("way", ["whole", "part", "in place"])
def test_files_go_both_ways(tmp_path, way):
    module = compiled(way)
    fit(tmp_path, module, pruning())
    small = {name: value.clone() for name, value in module.state_dict().items()}
    files = tmp_path / "checkpoints"
    names = torch.load(files / "last.ckpt", weights_only=True)["state_dict"].keys()
    assert ("net._orig_mod.head.weight" in names) == (way == "part")
    for name in ("epoch=0.ckpt", "last.ckpt"):
        fresh = compiled(way)
        for target in (module, fresh):
            trainer = trainer_in(tmp_path, [pruning()], logger=False)
            found = trainer.test(target, Data(), ckpt_path=files / name, verbose=False)
            assert found[0]["val/params"] == size(target)
    for target in (module, fresh):
        assert all(torch.equal(value, small[n]) for n, value in target.state_dict().items())
    fit(tmp_path / "b", fresh := compiled(way), pruning(), ckpt_path=files / "epoch=2.ckpt")
    assert size(fresh) == size(module)


def test_hooks_of_a_run_that_failed_are_gone(tmp_path):
    class Fails(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 5:  # batches after the cut are being recorded
                raise ConnectionError

    module = Stranger()
    with torch.compiler.set_stance("force_eager"):
        module.net.compile()
        module.compile()
        with pytest.raises(ConnectionError):
            fit(tmp_path, module, Fails(), pruning())
        assert not module._forward_pre_hooks
        assert EAGER.holders == 0


def test_where_compiled_code_is():
    inner = nn.Linear(1, 1)
    module = L.LightningModule()
    module.net = nn.Sequential(inner)
    assert not is_compiled(inner, module)
    module.net = torch.compile(nn.Sequential(inner), backend="eager")
    assert is_compiled(inner, module)
    assert not is_compiled(module.net, module)
    assert not is_compiled(module, module)
    module.net = nn.Sequential(inner)
    module.net.compile(backend="eager")
    assert is_compiled(inner, module)
    assert is_compiled(module.net, module)
    assert not is_compiled(module, module)
