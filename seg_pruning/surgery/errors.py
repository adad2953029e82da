"""The one error type for what the user can mend."""


class PruningError(ValueError):
    """A request that cannot be carried out as asked.

    The message names the offending value (with layer names where there are any), what would be legal, and
    the remedy. When it is raised the network is as it was before the call.
    """
