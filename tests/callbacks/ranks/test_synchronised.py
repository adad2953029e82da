"""SyncBatchNorm trains on GPUs only; what its network is looked at and cut by is what a CPU can show."""

import torch
from torch import nn

import seg_pruning as sp
from seg_pruning.pruning.recalibration import recalibrate_, tracking_norms
from seg_pruning.surgery.inputs import Inputs
from tests.callbacks.modules import SkipNet


def test_a_network_with_synchronised_norms_is_cut_like_one_without():
    plain, image = SkipNet().eval(), torch.rand(2, 3, 8, 8)
    synchronised = SkipNet()
    synchronised.load_state_dict(plain.state_dict())
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(synchronised).eval()
    one, other = (sp.prune_(net, image, budget={"params": 0.5}) for net in (plain, synchronised))
    assert one.plan == other.plan
    assert isinstance(synchronised.first[1], nn.SyncBatchNorm)
    assert synchronised.first[1].num_features == plain.first[1].num_features < 6
    torch.testing.assert_close(synchronised(image), plain(image))
    for net in (plain, synchronised):
        recalibrate_(net, tracking_norms(net), [Inputs((image,), {})])
    torch.testing.assert_close(synchronised(image), plain(image))
