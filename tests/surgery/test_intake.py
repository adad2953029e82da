"""JSON is read strictly; what `check_fits` refuses is in test_files, where hostile files are."""

import json

import pytest

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.intake import check_fits, parse
from seg_pruning.surgery.structure import Structure
from tests.networks import NETWORKS


@pytest.mark.parametrize("value", [{}, [1, 2.5, None, True, "x"], {"a": {"a": 1}}, "text", -3], ids=str)
def test_what_json_writes_is_read(value):
    assert parse(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "'c' more than once"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("[" * 10**6, "nested too deeply"),
        ("1" * 10**4, "limit"),
        ("{", "Expecting"),
    ],
    ids=["twice", "nan", "infinite", "deep", "long", "cut off"],
)
def test_what_is_not_strictly_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_structure_is_for_its_network():
    model = NETWORKS["AttributeSize"]()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    width = Attribute("", "width")
    check_fits(model, shapes, Structure(sizes={width: (12, 5)}))
    with pytest.raises(PruningError, match="width: 11 in the dense network, not 12"):
        check_fits(model, shapes, Structure(sizes={width: (11, 5)}))
    wider, dense = shapes | {"stem.weight": (13, 3, 3, 3)}, Structure(dense={"stem.weight": (12, 3, 3, 3)})
    with pytest.raises(PruningError, match=r"stem\.weight: shape \(13, 3, 3, 3\) of a dense \(12, 3, 3, 3\)"):
        check_fits(model, wider, dense)
