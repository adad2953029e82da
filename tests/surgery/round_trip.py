"""Pruned networks saved here and loaded in another process: one process for as many networks as wanted.

    with RoundTrips() as trips:
        for ...:
            error = trips.check(model, example, "tests.surgery.test_zoo:build", "unet", "resnet18")

`error` is empty where the loaded network answers bit for bit what the saved one does.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seg_pruning.surgery.files import load_pruned_, save_pruned
from seg_pruning.surgery.inputs import Inputs, flatten_tensors
from seg_pruning.surgery.note import structure_of

ROOT = Path(__file__).parents[2]


class RoundTrips:
    """Another Python process that loads what this one saves; files are gone after each check."""

    def __enter__(self) -> "RoundTrips":
        self._folder = tempfile.TemporaryDirectory()
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.surgery.round_trip"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def check(self, model: nn.Module, example: Any, builder: str, *args: Any) -> str:
        """What goes wrong where `model` is saved, built anew elsewhere by `builder(*args)` and loaded.

        Args:
            model: a pruned network, on the CPU.
            example: what it is called with; tensors, tuples and dicts of them.
            builder: `module:function`, which gives the dense network.
            args: plain JSON types.
        """
        folder = Path(self._folder.name)
        file, expected = folder / "net.safetensors", folder / "expected.pt"
        save_pruned(model, file)
        structure = structure_of(model)
        answers = {
            "example": example,
            "outputs": _answers(model, example),
            "structure": None if structure is None else structure.to_dict(),
        }
        torch.save(answers, expected)
        task = {"file": str(file), "expected": str(expected), "builder": builder, "args": args}
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        file.unlink()
        expected.unlink()
        return json.loads(answer) if answer else f"the process ended: {self._process.poll()}"


def _answers(model: nn.Module, example: Any) -> list[Tensor]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        torch.manual_seed(0)
        with torch.no_grad():
            return [t.clone() for t in flatten_tensors(Inputs.of(example).call(model.eval()))]
    finally:
        for module, mode in modes:
            module.training = mode


def _differences(task: dict[str, Any]) -> str:
    module, _, function = task["builder"].partition(":")
    model = getattr(importlib.import_module(module), function)(*task["args"])
    for tensor in model.state_dict().values():  # what is not loaded cannot be right by chance
        tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    load_pruned_(model, task["file"])
    expected = torch.load(task["expected"], weights_only=True)
    structure = structure_of(model)
    if (None if structure is None else structure.to_dict()) != expected["structure"]:
        return "the structure differs"
    got = _answers(model, expected["example"])
    if [t.shape for t in got] != [t.shape for t in expected["outputs"]]:
        return f"shapes {[tuple(t.shape) for t in got]}"
    worst = max((a - b).abs().max().item() for a, b in zip(got, expected["outputs"], strict=True))
    equal = all(torch.equal(a, b) for a, b in zip(got, expected["outputs"], strict=True))
    return "" if equal else f"outputs differ by up to {worst:.1e}"


def _serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        try:
            error = _differences(json.loads(line))
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        print(json.dumps(error), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
