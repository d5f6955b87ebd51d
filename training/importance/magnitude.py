"""Magnitude importance: the size of the weights that make and read a unit."""

import torch

from training.importance import Signals, Unattached, UnitScores
from training.units import head_weight_norms_LH, neuron_weight_norms_LF


class MagnitudeImportance(Unattached):
    """The squared L2 norm of all weights of a unit: what would be cut out with it.

    Han et al. 2015, "Learning both Weights and Connections", for groups of weights as in Li et al. 2017, "Pruning
    Filters for Efficient ConvNets", section 3.1.
    """

    adds_up = True

    @torch.no_grad()
    def score(self, signals: Signals) -> UnitScores:
        """Of the weights as they are now."""
        heads_LH, neurons_LF = head_weight_norms_LH(signals.model) ** 2, neuron_weight_norms_LF(signals.model) ** 2
        return UnitScores(heads_LH.double().cpu().numpy(), neurons_LF.double().cpu().numpy())
