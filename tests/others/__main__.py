"""`python -m tests.others [names]`: classifiers are cut at random and compared with the masked original."""

import copy
import sys
import time

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.trial import random_plan, trace
from tests.others.absent import masked_answers
from tests.others.cases import noise
from tests.others.classifiers import CLASSIFIERS, classifier
from tests.surgery.oracle import answers, same


def line(name: str) -> tuple[bool, str]:
    """Whether the network was cut right, and a row of the table."""
    dense, example, started = classifier(name), noise(1, 3, 64, 64), time.perf_counter()
    try:
        graph = trace(dense, example)
        pruned = copy.deepcopy(dense)
        cut = operate_(pruned, graph, random_plan(graph, seed=1), Inputs.of(example)).cut
    except PruningError as error:
        return False, f"{name:32} refused: {error}"
    right = same(answers(pruned, example), masked_answers(dense, cut.masks, example))
    seconds = time.perf_counter() - started
    pinned = len(graph.groups) - len(graph.prunable)
    verdict = "right" if right else "WRONG"
    return right, f"{name:32} {verdict:6} {len(graph.groups):4} groups, {pinned:3} pinned {seconds:6.1f} s"


def main(names: list[str]) -> int:
    """Prints a row for each network; the number of those that failed."""
    failed = 0
    for name in names or CLASSIFIERS:
        right, row = line(name)
        failed += not right
        print(row, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
