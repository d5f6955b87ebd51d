import json

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from training.geometry import geometry_of
from training.loading import load_dense
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification


def inputs(vocabulary=23, batch=3, tokens=7):
    generator = torch.Generator().manual_seed(0)
    attention_mask = torch.ones(batch, tokens, dtype=torch.long)
    attention_mask[1, 4:] = 0
    return {
        "input_ids": torch.randint(0, vocabulary, (batch, tokens), generator=generator),
        "attention_mask": attention_mask,
        "token_type_ids": torch.randint(0, 2, (batch, tokens), generator=generator),
    }


@torch.inference_mode()
def test_a_dense_bert_gives_the_same_logits_as_hugging_face(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, num_labels=3
    )
    bert = BertForSequenceClassification(config).eval()
    bert.save_pretrained(tmp_path)
    own = load_dense(str(tmp_path)).eval()
    assert torch.equal(own(**inputs()).logits, bert(**inputs()).logits)
    assert geometry_of(own).parameters() == bert.num_parameters()


def test_loss_is_the_mean_cross_entropy(bert_dir):
    model = load_dense(str(bert_dir)).eval()
    labels = torch.tensor([0, 1, 1])
    output = model(**inputs(), labels=labels)
    assert output.loss == torch.nn.functional.cross_entropy(output.logits, labels)


@torch.inference_mode()
def test_uneven_layers_save_and_load(tmp_path):
    torch.manual_seed(1)
    config = SparseBertConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24, head_size=4,
        heads_per_layer=[1, 0, 4], neurons_per_layer=[5, 24, 0],
    )  # fmt: skip
    model = SparseBertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=False).eval()
    assert geometry_of(loaded).heads_L == (1, 0, 4)
    assert geometry_of(loaded).neurons_L == (5, 24, 0)
    assert torch.equal(loaded(**inputs()).logits, model(**inputs()).logits)
    assert geometry_of(loaded).parameters() == loaded.num_parameters()
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]


@torch.inference_mode()
def test_a_checkpoint_from_before_other_families_loads(tmp_path):
    """Its configuration does not name what BERT does not have, and no code lies beside it."""
    torch.manual_seed(1)
    config = SparseBertConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=24, head_size=4
    )
    model = SparseBertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for name in ("embedding_size", "pooler_activation", "auto_map"):
        values.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "modeling.py").unlink()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs()).logits, model(**inputs()).logits)


def test_checkpoints_with_the_old_layer_norm_names_load(tmp_path, bert_dir):
    """google-bert/bert-base-uncased has gamma and beta, and the heads of its pretraining."""
    from safetensors.torch import load_file, save_file

    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = {"cls.predictions.bias": torch.zeros(23)}
    for key, value in load_file(bert_dir / "model.safetensors").items():
        old = next((key.replace(new, old) for new, old in names.items() if new in key), key)
        weights[f"bert.{old}"] = value
    (tmp_path / "config.json").write_bytes((bert_dir / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_dense(str(tmp_path)).bert.state_dict()
    expected = load_dense(str(bert_dir)).bert.state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
