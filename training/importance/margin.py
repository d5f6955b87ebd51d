"""Margin importance: how far the answers move when the unit's gate is closed, whatever the labels say."""

from training.importance.fisher import FisherImportance


class MarginImportance(FisherImportance):
    """The mean over texts of p (1 - p) (z * ∂margin/∂z)², z that of the open unit, of a model that stands still.

    Squared gate gradients as in `FisherImportance`, of `training.distillation.MarginObjective`. For the answers what
    Kwon et al. 2022, section 3.2, take for the loss: half of the sum over the removed units is by how much the
    distillation loss rises, to second order, without what units do together, and where the model gives the
    teacher's answers (of a family's later targets, nearly).
    """
