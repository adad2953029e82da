import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from seg_pruning.profiling import Cost, comparison, flat, latency, table

DENSE = {"params": 14_328_209, "macs": 1_349_500_000, "test/dice": 0.8, "test/iou": 0.0, "only/dense": 1.0}
PRUNED = {"params": 1_432_821, "macs": 134_950_000, "test/dice": 0.6, "test/iou": 0.5}


def shown(compared: dict[str, dict[str, float | None]]) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(compared))
    lines = [line for line in capture.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_a_cost_is_flattened_under_the_names_of_the_summary() -> None:
    timed = latency(nn.Identity(), torch.zeros(1), warmup=0, runs=2)
    timed = replace(timed, p50_ms=2.0, p95_ms=3.0)
    assert flat(Cost(5, 7)) == {"params": 5, "macs": 7, "flops": 14}
    assert flat(Cost(5, 7, timed)) == {
        "params": 5,
        "macs": 7,
        "flops": 14,
        "latency_p50_ms": 2.0,
        "latency_p95_ms": 3.0,
    }


def test_ratios_are_pruned_over_dense_of_what_both_have() -> None:
    compared = comparison(DENSE, PRUNED)
    assert list(compared) == ["dense", "pruned", "ratio"]
    assert compared["dense"] == DENSE
    assert compared["pruned"] == PRUNED
    assert compared["ratio"]["test/iou"] is None
    known = {name: value for name, value in compared["ratio"].items() if value is not None}
    assert known == pytest.approx({"params": 0.1, "macs": 0.1, "test/dice": 0.75}, rel=1e-6)


def test_what_is_not_finite_is_null_in_strict_json() -> None:
    compared = comparison({"a": float("nan"), "b": 1.0, "c": None}, {"a": 1.0, "b": float("inf"), "c": 2.0})
    assert json.loads(json.dumps(compared, allow_nan=False)) == {
        "dense": {"a": None, "b": 1.0, "c": None},
        "pruned": {"a": 1.0, "b": None, "c": 2.0},
        "ratio": {"a": None, "b": None, "c": None},
    }


def test_the_table_shows_costs_first_and_a_dash_for_nothing() -> None:
    metrics_first = dict(reversed(DENSE.items()))
    assert shown(comparison(metrics_first, PRUNED)) == [
        ["params", "14,328,209", "1,432,821", "0.100"],
        ["MACs", "1.35 G", "134.95 M", "0.100"],
        ["only/dense", "1.000", "-", "-"],
        ["test/iou", "0.000", "0.500", "-"],
        ["test/dice", "0.800", "0.600", "0.750"],
    ]
