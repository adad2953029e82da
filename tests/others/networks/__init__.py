"""One file for each kind of network; importing them registers all."""

from tests.others.networks import calling, channels, computed, gates, layouts, norms, scales, tokens, whole

LOADED = (calling, channels, computed, gates, layouts, norms, scales, tokens, whole)
