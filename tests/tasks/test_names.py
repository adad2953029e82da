import pytest

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks.names import check_name


def test_names_what_is_near_and_all_that_is_legal():
    with pytest.raises(PruningError, match=r"'unnet' is no network\. Nearest: unet\. Legal: fpn, unet\."):
        check_name("unnet", ["unet", "fpn"], what="network", listing="list()")


def test_tells_how_to_list_many_names():
    with pytest.raises(PruningError, match=r"'zz' is no network\. There are 30: list\(\) gives them\."):
        check_name("zz", [f"network{n}" for n in range(30)], what="network", listing="list() gives them")
