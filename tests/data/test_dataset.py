import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

from seg_pruning.data.dataset import Draw, SeededSampler, SegmentationDataset
from seg_pruning.data.samples import Arrays


@pytest.fixture
def arrays():
    images = torch.randint(256, (3, 4, 6, 3), generator=torch.Generator().manual_seed(0)).byte()
    return Arrays(images, (images[..., 0] > 128).byte(), ("a", "b", "c"))


def test_items_have_the_shapes_and_types_that_tasks_expect(arrays):
    item = SegmentationDataset(arrays)[1]
    assert item["name"] == "b"
    assert (item["image"].shape, item["image"].dtype) == ((3, 4, 6), torch.float32)
    assert (item["mask"].shape, item["mask"].dtype) == ((4, 6), torch.int64)
    torch.testing.assert_close(item["mask"], arrays.masks[1].long())


def test_only_draws_are_transformed_and_by_their_seed(arrays):
    def fill(image, mask, seed):
        return image * 0, mask * 0 + seed

    dataset = SegmentationDataset(arrays, fill)
    torch.testing.assert_close(dataset[1]["mask"], arrays.masks[1].long())
    assert dataset[Draw(1, 9)]["mask"].unique().tolist() == [9]
    assert dataset[Draw(1, 9)]["name"] == "b"


def test_transforms_do_not_write_on_the_samples(arrays):
    before = arrays.images.clone()
    item = SegmentationDataset(arrays, lambda image, mask, seed: (image[:, ::-1], mask[:, ::-1]))[Draw(0, 0)]
    item["image"].zero_()
    item["mask"].zero_()
    torch.testing.assert_close(arrays.images, before)


def test_each_epoch_visits_all_in_another_order_with_other_seeds():
    sampler = SeededSampler(50, seed=3)
    first, second = list(sampler), list(sampler)
    for epoch in (first, second):
        assert sorted(draw.sample for draw in epoch) == list(range(50))
        assert len({draw.seed for draw in epoch}) == 50
    assert [draw.sample for draw in first] != [draw.sample for draw in second]
    assert {draw.seed for draw in first}.isdisjoint(draw.seed for draw in second)


def test_an_epoch_follows_from_seed_and_number_alone():
    played, jumped, other = SeededSampler(50, seed=3), SeededSampler(50, seed=3), SeededSampler(50, seed=4)
    epochs = [list(played) for _ in range(3)]
    jumped.set_epoch(2)
    other.set_epoch(2)
    assert list(jumped) == epochs[2]
    assert list(other) != epochs[2]


def test_processes_that_train_together_share_out_an_epoch():
    alone = SeededSampler(50, seed=3)
    ranks = [
        DistributedSamplerWrapper(SeededSampler(50, seed=3), num_replicas=2, rank=rank, shuffle=False)
        for rank in (0, 1)
    ]
    for epoch in (0, 1, 5):
        for sampler in (alone, *ranks):
            sampler.set_epoch(epoch)
        assert sorted([*ranks[0], *ranks[1]]) == sorted(alone)
