"""Makes a model bundle of a masked checkpoint: compaction, ONNX graph, parity, manifest.

Of training it uses only what says what a masked SparseBERT is.
"""

import sparsebert  # noqa: F401 - tells ONNX Runtime to send nothing, before anything here imports it
