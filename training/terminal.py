"""What a stage's command does to the terminal: each line of the log once, and progress bars that stay whole.

Knows nothing about what the stage does.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tidy_terminal() -> Iterator[None]:
    """Quiet the libraries; within the block a line of the log does not break a progress bar.

    Of several processes the first one speaks, the others only of errors.
    """
    from huggingface_hub.utils import logging as hub_logging
    from tqdm.contrib.logging import logging_redirect_tqdm
    from transformers.utils import logging as transformers_logging

    hub_logging.disable_propagation()  # it has a handler of its own; each line once is enough
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if int(os.environ.get("RANK", "0")) > 0:
        logging.getLogger().setLevel(logging.ERROR)
    with logging_redirect_tqdm():
        yield
