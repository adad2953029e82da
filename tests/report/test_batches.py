import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from seg_pruning.report.batches import (
    batches_digest,
    each_loader,
    first_batches,
    flat_loaders,
    image_of,
    serving,
)
from seg_pruning.surgery.errors import PruningError
from tests.tasks.tiny import TinyData

IMAGE = torch.arange(4.0)


def test_the_first_batches_are_held_and_given_again() -> None:
    loader = iter([1, 2, 3])
    held = first_batches(loader, 2)
    assert (list(held), list(held), list(loader)) == ([1, 2], [1, 2], [3])
    assert not isinstance(held, list), "a list would be taken for a list of loaders"


def test_without_a_limit_the_loader_stays() -> None:
    loader = DataLoader([1, 2])
    assert first_batches(loader, None) is loader


@pytest.mark.parametrize("loaders", [[[1], [2]], ([1], [2]), {"a": [1], "b": [2]}])
def test_several_loaders_stay_apart(loaders: object) -> None:
    changed = each_loader(loaders, lambda loader: [*loader, 9])
    assert flat_loaders(changed) == [[1, 9], [2, 9]]
    if isinstance(loaders, dict):
        assert list(changed) == ["a", "b"]


def test_a_data_module_gives_other_batches_for_a_while() -> None:
    data = TinyData()

    def failing() -> None:
        with serving(data, [1]):
            assert data.val_dataloader() == [1]
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert isinstance(data.val_dataloader(), DataLoader)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"image": IMAGE.clone(), "name": "other"}, True),
        ({"image": IMAGE + 1}, False),
        ({"image": IMAGE.double()}, False),
        ({"image": IMAGE.reshape(2, 2)}, False),
    ],
)
def test_a_digest_is_of_the_tensors(other: dict[str, object], same: bool) -> None:
    assert (batches_digest([other]) == batches_digest([{"image": IMAGE, "name": "one"}])) == same


@pytest.mark.parametrize("batch", [IMAGE, [IMAGE, 0], (IMAGE, IMAGE + 1), {"mask": 1, "image": IMAGE}])
def test_the_image_of_a_batch(batch: object) -> None:
    assert image_of(batch) is IMAGE


@pytest.mark.parametrize("batch", [{"pixels": IMAGE}, ["a", Tensor()], 3])
def test_a_batch_without_an_image_is_refused(batch: object) -> None:
    with pytest.raises(PruningError, match="no image can be recognised"):
        image_of(batch)
