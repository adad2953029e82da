import pytest
import torch

from seg_pruning.callbacks.example import example_like, example_of, image_shape
from seg_pruning.surgery.errors import PruningError
from tests.callbacks.interrupted import GOING_ON, assert_goes_on
from tests.callbacks.modules import Stranger, fit, pruning, size

pytestmark = GOING_ON

IMAGES = torch.zeros(4, 3, 8, 16)
MASKS = torch.zeros(4, 8, 16, dtype=torch.long)


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        (IMAGES, MASKS),
        [MASKS, IMAGES],
        {"mask": MASKS.float(), "image": IMAGES},
        {"a": "name", "b": IMAGES},
        (["name"], {"x": (MASKS, IMAGES)}),
    ],
)
def test_an_image_is_found_in_any_batch(batch):
    assert image_shape(batch) == (1, 3, 8, 16)


@pytest.mark.parametrize("batch", [MASKS, {"image": MASKS, "other": IMAGES}, "name", None, torch.tensor(1.0)])
def test_a_batch_without_an_image_is_refused_with_the_remedy(batch):
    with pytest.raises(PruningError, match=r"no image .*example_inputs=.*example_input_array"):
        image_shape(batch)


def test_noise_is_the_same_each_time_and_takes_no_random_number():
    state = torch.get_rng_state()
    first, second = example_like((1, 3, 4, 4)), example_like((1, 3, 4, 4))
    assert torch.equal(first.args[0], second.args[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_modules_own_example_comes_first(tmp_path):
    module = Stranger()
    assert example_of(module) is None
    module.example_input_array = torch.zeros(2, 3, 16, 16)
    run = pruning()
    fit(tmp_path, module, run)
    assert run.inputs.shapes == ((2, 3, 16, 16),)


def test_an_example_of_the_user_comes_before_the_modules(tmp_path):
    module, run = Stranger(), pruning(example_inputs={"images": torch.zeros(1, 3, 4, 4)})
    module.example_input_array = torch.zeros(2, 3, 16, 16)
    fit(tmp_path, module, run)
    assert run.inputs.shapes == ((1, 3, 4, 4),)


def test_inputs_are_not_known_before_training():
    with pytest.raises(PruningError, match="example_inputs"):
        _ = pruning().inputs


class TwoImages(Stranger):
    """Takes two images and how much of the second, and says so to nobody."""

    def forward(self, images, more, *, share):
        return self.net(images + share * more)

    def training_step(self, batch, batch_idx):
        return self(batch[0], batch[0], share=torch.tensor(0.5)).mean()


class Mute(Stranger):
    """Its forward takes two images too, but its training calls only a part."""

    def forward(self, images, more):
        return self.net(images + more)

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).mean()


def test_a_forward_that_takes_something_else_is_seen_in_training(tmp_path):
    module, run = TwoImages(), pruning(criterion="taylor")
    fit(tmp_path, module, run, limit_val_batches=0)
    assert run.inputs.shapes == ((1, 3, 8, 8), (1, 3, 8, 8), ())
    assert run.inputs.kwargs["share"] == 0.5
    assert size(module) <= 0.5 * size(TwoImages())


def test_what_was_seen_in_training_is_what_it_goes_on_with(tmp_path):
    assert_goes_on(tmp_path, lambda: [pruning(criterion="taylor")], step=4, module=Unvalidated, max_epochs=5)


class Unvalidated(TwoImages):
    def validation_step(self, batch, batch_idx):
        self(batch[0], batch[0], share=0.0)


def test_a_forward_that_training_never_calls_is_told_how_to_say_so(tmp_path):
    with pytest.raises(PruningError, match=r"example_inputs=.*module="):
        fit(tmp_path / "a", Mute(), pruning(), limit_val_batches=0)
    module = Mute()
    image = torch.rand(1, 3, 8, 8)
    fit(tmp_path / "b", module, pruning(example_inputs=(image, image)), limit_val_batches=0)
    assert module.net.down[0].out_channels < 12


def test_double_precision(tmp_path):
    module = Stranger()
    fit(tmp_path, module, pruning(criterion="taylor"), precision="64-true")
    assert module.net.down[0].out_channels < 12
