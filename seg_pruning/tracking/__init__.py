"""Where numbers go: loggers chosen, configs, events and summaries written. The only place that knows W&B."""

from .events import log_config, log_event, log_final
from .loggers import MetricsFile, choose_loggers
from .run_folder import RunFolder, written
from .weights_and_biases import close_new_runs

__all__ = [
    "MetricsFile",
    "RunFolder",
    "choose_loggers",
    "close_new_runs",
    "log_config",
    "log_event",
    "log_final",
    "written",
]
