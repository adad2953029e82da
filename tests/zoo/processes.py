"""Jobs in processes of their own, with a limit of time for each: a hang or a crash is an answer too."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")

_PRELOAD = ["torch", "segmentation_models_pytorch", "seg_pruning.surgery.trial"]


@dataclass(frozen=True)
class Outcome(Generic[Answer]):
    """What became of a job: an answer, or the reason why there is none."""

    answer: Answer | None
    reason: str = ""


@dataclass(frozen=True)
class _Running(Generic[Job]):
    job: Job
    process: BaseProcess
    pipe: Connection
    end: float


def run_each(
    work: Callable[[Job], Answer], jobs: Sequence[Job], *, workers: int, limit_s: float
) -> Iterator[tuple[Job, Outcome[Answer]]]:
    """Yields each job with its outcome, as they end; each has a fresh process and one thread.

    Args:
        work: a function of a module, given a job; its answer has to be picklable.
        jobs: started in this order.
        workers: how many run at once.
        limit_s: a job that takes longer is killed.
    """
    context = multiprocessing.get_context("forkserver")  # imports are paid once; each fork is clean
    context.set_forkserver_preload(_PRELOAD)
    waiting, running = list(jobs), list[_Running[Job]]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_start(context, work, waiting.pop(0), limit_s))
            until = min(r.end for r in running) - time.monotonic()
            ready = wait([r.pipe for r in running], timeout=max(0.0, until))
            done = [r for r in running if r.pipe in ready or r.end <= time.monotonic()]
            running = [r for r in running if r not in done]
            for one in done:
                yield one.job, _end(one, limit_s)
    finally:
        for one in running:
            _kill(one.process)


def _start(
    context: multiprocessing.context.ForkServerContext,
    work: Callable[[Job], Answer],
    job: Job,
    limit_s: float,
) -> _Running[Job]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(work, job, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Running(job, process, ours, time.monotonic() + limit_s)


def _serve(work: Callable[[Job], Answer], job: Job, pipe: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        pipe.send(Outcome(work(job)))
    except Exception as error:
        pipe.send(Outcome(None, f"{type(error).__name__}: {error}"))


def _end(one: _Running[Job], limit_s: float) -> Outcome[Answer]:
    try:
        if not one.pipe.poll():
            return Outcome(None, f"did not end within {limit_s:.0f} s")
        outcome: Outcome[Answer] = one.pipe.recv()
        return outcome
    except EOFError:
        one.process.join()
        return Outcome(None, f"its process died, exit code {one.process.exitcode}")
    finally:
        _kill(one.process)


def _kill(process: BaseProcess) -> None:
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
