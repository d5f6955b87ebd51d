"""Fine-tunes a BERT-family classifier while pruning attention heads and FFN neurons.

Knows nothing about ONNX or serving. `import training` registers the model class with Transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModelForSequenceClassification

from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

__all__ = ["SparseBertConfig", "SparseBertForSequenceClassification"]

AutoConfig.register(SparseBertConfig.model_type, SparseBertConfig, exist_ok=True)
AutoModelForSequenceClassification.register(SparseBertConfig, SparseBertForSequenceClassification, exist_ok=True)
