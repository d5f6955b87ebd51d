"""Named runs, each a function that returns a complete configuration.

Knows nothing about the command line, which changes single values of a recipe.
"""

from dataclasses import replace

from training.backbone import EMBEDDED
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.data import DataConfig
from training.loop import LoopConfig
from training.pruner import PruningConfig
from training.schedule import RampConfig

# Score, cut once, and train what is left: no worse than a ramp for the same work (docs/results.md).
AT_ONCE = PruningConfig(ramp=RampConfig(shape="one-shot", frozen_share=0.0), score_decay=0.99)


def standard() -> TrainConfig:
    """Fine-tune a BERT on a GLUE-sized task, then remove two thirds of its encoder and let the rest recover.

    `sparsebert train --model google-bert/bert-base-uncased --task sst2 --output runs/sst2`
    """
    return TrainConfig(
        model=EMBEDDED,
        data=DataConfig(),
        dense=LoopConfig(epochs=3, learning_rate=5e-5),
        sparse=LoopConfig(epochs=0.2, learning_rate=5e-5),
        recovery=LoopConfig(epochs=3, learning_rate=5e-5),
        pruning=AT_ONCE,
        budget=BudgetConfig(shares=(0.67,)),
    )


def demo() -> TrainConfig:
    """What `make demo` trains: MiniLM on the movie reviews, minutes on two CPU cores.

    `sparsebert train --recipe demo --output runs/demo`. Measured numbers are in docs/results.md.
    """
    sparse = LoopConfig(epochs=0.25, learning_rate=1.5e-4, train_embeddings=False, dropout=0.0)
    return TrainConfig(
        model=EMBEDDED,
        data=DataConfig(),
        dense=LoopConfig(epochs=2, learning_rate=1e-4, train_embeddings=False),
        sparse=sparse,
        recovery=replace(sparse, epochs=4),
        pruning=AT_ONCE,
        budget=BudgetConfig(shares=(0.67,)),
    )


RECIPES = {"standard": standard, "demo": demo}
