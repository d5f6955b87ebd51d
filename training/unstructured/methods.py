"""The baselines of the literature: where each starts, by what it judges single weights, and when they leave.

Knows nothing about models or training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from training.schedule import RampConfig, SparsityRamp

MethodName = Literal["iterative-magnitude", "magnitude-before", "magnitude-after", "movement"]
ROUNDS = 4
RAMP = RampConfig(shape="cubic", warmup_share=0.1, frozen_share=0.3)
SCORE_LEARNING_RATE = 1e-2  # of movement, in all commands beside the code of Sanh et al. 2020


@dataclass(frozen=True, kw_only=True)
class Method:
    """`share(step, num_steps, final)` of the weights is 0 after `step` of `num_steps` steps.

    `form` counts the forms of its rule: any change of what it does to the weights raises it, wherever in the code that
    is, so that what an earlier form gave is not taken for this one's. `constants` are those that the rule uses.
    """

    start: Literal["backbone", "dense"]
    criterion: Literal["magnitude", "movement"]
    share: Callable[[int, int, float], float]
    source: str
    form: int = 1
    constants: tuple[object, ...] = ()

    @property
    def rule(self) -> str:
        """Another after a change of what the method does, whatever it cites."""
        return f"{self.start} {self.criterion} form {self.form} {self.constants}"


def at_once(step: int, num_steps: int, final: float) -> float:  # noqa: ARG001 (one form for all)
    """Everything before the first step."""
    return final


def in_rounds(step: int, num_steps: int, final: float) -> float:
    """Each of `ROUNDS` rounds prunes the same share of what is left, then retrains."""
    begun = min(ROUNDS, ROUNDS * step // num_steps + 1)
    return float(1.0 - (1.0 - final) ** (begun / ROUNDS))


def along_ramp(step: int, num_steps: int, final: float) -> float:
    """A cubic ramp between a warm-up and a tail at the final share."""
    return SparsityRamp(final=final, config=RAMP).share(step, num_steps)


METHODS: dict[MethodName, Method] = {
    "iterative-magnitude": Method(
        start="dense", criterion="magnitude", share=in_rounds, constants=(ROUNDS,),
        source="Han et al. 2015, Learning both Weights and Connections for Efficient Neural Networks, section 3",
    ),
    "magnitude-before": Method(
        start="backbone", criterion="magnitude", share=at_once,
        source="Gordon et al. 2020, Compressing BERT, section 3: pruned as pretrained, then fine-tuned",
    ),
    "magnitude-after": Method(
        start="dense", criterion="magnitude", share=at_once,
        source="Gordon et al. 2020, Compressing BERT: pruned after fine-tuning, then trained on",
    ),
    "movement": Method(
        start="backbone", criterion="movement", share=along_ramp, form=2, constants=(RAMP, SCORE_LEARNING_RATE),
        source="Sanh et al. 2020, Movement Pruning, section 4: hard, within each matrix, as their code",
    ),
}  # fmt: skip
