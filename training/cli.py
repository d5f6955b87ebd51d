"""`sparsebert train`: the command line's words become a configuration, and the run is started.

Knows nothing about how training works.
"""

import logging
from collections.abc import Sequence

from training.flags import build_config, build_parser
from training.terminal import tidy_terminal

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert train` with the words after it."""
    options = build_parser().parse_args(arguments)
    config = build_config(options)

    from training.run import run_training

    with tidy_terminal():
        result = run_training(config, options.output)
    for name, folder in result.checkpoints.items():
        logger.info("%s: accuracy %.2f%% -> %s", name, 100 * result.accuracies[name], folder)
    if config.search is not None and result.best is None:
        logger.info("next: a smaller --sparsity, a larger --max-drop, or more --recovery-epochs")
        return
    last = result.checkpoints[result.best] if result.best else list(result.checkpoints.values())[-1]
    logger.info("next: sparsebert export %s --output models/NAME/VARIANT", last)
