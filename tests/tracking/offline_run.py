"""Reads what W&B wrote offline: a header of 7 bytes, then records in blocks of 32 KiB (a private format)."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK, RECORD_HEADER = 7, 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    config: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def read_offline_run(folder: Path) -> OfflineRun:
    """Gives the only offline run below a folder; metric names to the names of their axes in `axes`."""
    wandb.teardown()  # its service may still be writing
    (file,) = folder.rglob("offline-run-*/run-*.wandb")
    run = OfflineRun()
    for data in _records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        for item in (*record.run.config.update, *record.config.update):
            run.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("history"):
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            run.history.append(row)
        for item in record.summary.update:
            run.summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("metric"):
            run.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        if record.HasField("exit"):
            run.exit_code = record.exit.exit_code
    return run


def _records(data: bytes):
    assert data[:4] == b":W&B"
    position, parts = HEADER, b""
    while position + RECORD_HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < RECORD_HEADER:  # the rest of a block that cannot hold a header is padding
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + RECORD_HEADER : position + RECORD_HEADER + length]
        position += RECORD_HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""
