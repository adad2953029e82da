"""One file for each kind of network; importing them registers all."""

from tests.others.networks import calling, computed, gates, layouts, norms, scales, tokens, whole

LOADED = (calling, computed, gates, layouts, norms, scales, tokens, whole)
