"""Fine-tunes a BERT-family classifier while pruning attention heads and FFN neurons.

Knows nothing about ONNX or serving. `import training` registers the model class with Transformers' Auto classes.
"""

from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

__all__ = ["SparseBertConfig", "SparseBertForSequenceClassification"]
