"""In which arithmetic, on which devices and with which tracker does a run compute? accelerate's answer, made ours.

`accelerate launch` and `torchrun` tell it how many processes there are; without them there is one.
"""

import logging
import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from sparsebert.errors import ConfigError
from training.config import ArithmeticName, TrainConfig
from training.tracking import check_tracker, log_folder

logger = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(hours=12)  # while the first process asks the teacher or judges


def make_accelerator(config: TrainConfig, output: Path) -> Accelerator:
    """Raises ConfigError for arithmetic that this machine lacks, MissingExtraError for a tracker that is not there."""
    check_tracker(config.track)
    accelerator = Accelerator(
        cpu=_is_one_of_several() and not torch.accelerator.is_available(),  # accelerate would take it for the only one
        mixed_precision=resolve(config.arithmetic),
        log_with=None if config.track == "none" else config.track,
        project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(log_folder(output))),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )
    logger.info(
        "training on %s, precision %s%s", accelerator.device, accelerator.mixed_precision,
        f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else "",
    )  # fmt: skip
    return accelerator


def resolve(name: ArithmeticName) -> str:
    """Accelerate's name for it; `auto` is bf16 where the processor multiplies it natively, else fp32."""
    if name == "fp16" and not torch.cuda.is_available():
        raise ConfigError("--precision fp16 needs a GPU; use bf16 or fp32 here, or auto")
    if name != "auto":
        return "no" if name == "fp32" else name
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "no"


def _is_one_of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"
