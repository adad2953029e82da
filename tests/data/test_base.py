import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from seg_pruning.data import SyntheticPolyps


def small(**changes):
    arguments = {
        "counts": (10, 4, 3),
        "image_size": (16, 24),
        "batch_size": 4,
        "num_workers": 0,
        "augment": True,
    }
    return SyntheticPolyps(**(arguments | changes))


def stack(loader):
    """All that one epoch gives."""
    batches = list(loader)
    names = [name for batch in batches for name in batch["name"]]
    return names, *(torch.cat([batch[key] for batch in batches]) for key in ("image", "mask"))


def assert_same(epoch, expected):
    assert epoch[0] == expected[0]
    torch.testing.assert_close(epoch[1:], expected[1:], rtol=0, atol=0)


class Spy(L.LightningModule):
    """A network of one weight that remembers the batches of each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, index):
        assert index >= 0
        self.seen.setdefault(self.current_epoch, []).append((batch["name"], batch["image"]))
        return self.weight * batch["image"].mean()

    def validation_step(self, batch, index):
        raise AssertionError("validation is switched off")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(folder, epochs):
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=epochs,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def test_batches_have_the_shapes_and_types_that_tasks_expect():
    batch = next(iter(small().train_dataloader()))
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 3, 16, 24), torch.float32)
    assert (batch["mask"].shape, batch["mask"].dtype) == ((4, 16, 24), torch.int64)
    assert len(batch["name"]) == 4
    assert all(isinstance(name, str) for name in batch["name"])


def test_the_number_of_workers_changes_nothing_and_epochs_differ():
    alone, together = small().train_dataloader(), small(num_workers=2).train_dataloader()
    first = stack(alone)
    assert_same(stack(together), first)
    second = stack(alone)
    assert_same(stack(together), second)
    assert first[0] != second[0]
    by_name = [dict(zip(epoch[0], epoch[1], strict=True)) for epoch in (first, second)]
    for name in set(first[0]) & set(second[0]):
        assert not torch.equal(by_name[0][name], by_name[1][name]), name


def test_another_seed_gives_other_batches_of_the_same_pictures():
    one, two = small(augment=False), small(augment=False, seed=1)
    torch.testing.assert_close(one.parts.train.images, two.parts.train.images)
    assert stack(one.train_dataloader())[0] != stack(two.train_dataloader())[0]


def test_lightning_gives_a_later_epoch_as_an_uninterrupted_run_would(tmp_path):
    whole, rest, first = Spy(), Spy(), make_trainer(tmp_path, 1)
    make_trainer(tmp_path, 3).fit(whole, small())
    first.fit(Spy(), small())
    first.save_checkpoint(tmp_path / "first.ckpt")
    make_trainer(tmp_path, 3).fit(rest, small(), ckpt_path=tmp_path / "first.ckpt")
    assert sorted(rest.seen) == [1, 2]
    for epoch, batches in rest.seen.items():
        for (names, images), (expected_names, expected) in zip(batches, whole.seen[epoch], strict=True):
            assert names == expected_names
            torch.testing.assert_close(images, expected, rtol=0, atol=0)


def test_evaluation_keeps_all_samples_in_order():
    data = small(counts=(5, 7, 6))
    for loader, part in (
        (data.val_dataloader(), data.parts.val),
        (data.test_dataloader(), data.parts.test),
        (data.predict_dataloader(), data.parts.test),
    ):
        names, _, masks = stack(loader)
        assert tuple(names) == part.names
        torch.testing.assert_close(masks, part.masks.long())


@pytest.mark.parametrize(("count", "batches"), [(3, 1), (4, 1), (9, 2)])
def test_training_drops_an_incomplete_batch_unless_it_is_the_only_one(count, batches):
    assert len(list(small(counts=(count, 1, 1)).train_dataloader())) == batches


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "`batch_size` to be at least 1, but got 0"),
        ({"num_workers": -1}, "`num_workers` to be at least 0, but got -1"),
        ({"image_size": (16, 0)}, "`image_size` to be at least 1, but got 0"),
        ({"seed": -1}, "`seed` to be at least 0, but got -1"),
        ({"counts": (1, 0, 1)}, r"`counts`.*got \(1, 0, 1\)"),
    ],
)
def test_impossible_arguments_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        small(**changes)


class Broken(SyntheticPolyps):
    def load_parts(self):
        raise ValueError("bad data")


def test_bad_data_ends_a_run_before_it_writes_anything(tmp_path):
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, logger=CSVLogger(tmp_path))
    with pytest.raises(ValueError, match="bad data"):
        trainer.fit(Spy(), Broken())
    assert list(tmp_path.iterdir()) == []
