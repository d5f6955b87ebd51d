"""What does pruning single weights, as the literature does it, keep of the accuracy? Ceilings to compare with.

Zeros in a matrix of its old size make no model smaller or faster here; see `training.stages` for what does.
"""
