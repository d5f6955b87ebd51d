"""What can go wrong, as one tree; every message names the cure.

Knows nothing about HTTP or exit codes: `sparsebert.cli` and `service.app` map these classes to both.

    SparseBertError
    ├── ConfigError         a value given by the user is out of its range
    ├── MissingExtraError   a package of an extra is not installed
    ├── DataError           a data set cannot be had, read or understood
    ├── BackboneError       a pretrained model cannot be had or is not one we can prune
    ├── CheckpointError     a masked checkpoint is missing, incomplete or malformed
    ├── TrainingError       training cannot go on (a NaN loss, for example)
    ├── BudgetError         a sparsity target that no selection of units can meet
    ├── ExportError         a model cannot be exported
    │   └── ParityError     the exported graph does not compute what PyTorch computes
    ├── BundleError         a model bundle is missing, incomplete, malformed or altered
    │   └── DigestError     a file of the bundle has other bytes than its manifest says
    ├── ClientError         see `sparsebert.client.errors`
    └── ServiceError        see `service.errors`
"""


class SparseBertError(Exception):
    """Base of every error that SparseBERT raises on purpose; `str(error)` is one sentence for the user."""


class ConfigError(SparseBertError):
    """A value given by the user is out of its range."""


class MissingExtraError(SparseBertError):
    """A package that belongs to an extra is not installed."""


class DataError(SparseBertError):
    """A data set cannot be had, read or understood."""


class BackboneError(SparseBertError):
    """A pretrained model cannot be had, or is of a kind that SparseBERT cannot prune."""


class CheckpointError(SparseBertError):
    """A masked checkpoint is missing, incomplete or malformed."""


class TrainingError(SparseBertError):
    """Training cannot go on."""


class BudgetError(SparseBertError):
    """No selection of units meets the asked sparsity."""


class ExportError(SparseBertError):
    """A model cannot be exported."""


class ParityError(ExportError):
    """The exported graph does not compute the function that PyTorch computes."""


class BundleError(SparseBertError):
    """A model bundle is missing, incomplete or malformed."""


class DigestError(BundleError):
    """A file of the bundle has other bytes than its manifest says."""
