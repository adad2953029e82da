import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.callbacks import EarlyStopping as OtherStopping
from pytorch_lightning.callbacks import ModelCheckpoint as OtherCheckpoint

from seg_pruning import packages
from tests.callbacks.modules import Stranger


@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping])
def test_the_twin_of_a_class(kind):
    other = {ModelCheckpoint: OtherCheckpoint, EarlyStopping: OtherStopping}[kind]
    assert packages.twins(kind) == (kind, other)


def test_there_is_no_twin_of_what_is_not_imported_or_too_new(monkeypatch):
    monkeypatch.delattr("pytorch_lightning.callbacks.early_stopping.EarlyStopping")
    assert packages.twins(EarlyStopping) == (EarlyStopping,)
    monkeypatch.delitem(packages.sys.modules, "pytorch_lightning.callbacks.model_checkpoint")
    assert packages.twins(ModelCheckpoint) == (ModelCheckpoint,)
    with pytest.raises(ValueError, match=r"expected a class of lightning\.pytorch"):
        packages.twins(Stranger)
