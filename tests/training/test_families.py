"""Every family's own Hugging Face class is the judge of what we make of its weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2Model,
)

from sparsebert.errors import BackboneError
from training.families import FAMILIES
from training.geometry import geometry_of
from training.loading import load_dense, max_positions

WITH_TYPES = ("bert", "electra")
TAKEN = (
    "SparseBERT takes encoders with absolute positions of the model types bert, roberta, distilbert, electra, "
    "camembert, xlm-roberta, for example --model google-bert/bert-base-uncased"
)
every_family = pytest.mark.parametrize("model_type", FAMILIES)


def padded_inputs(pad_id: int) -> dict[str, torch.Tensor]:
    """Four texts of 12, 7, 2 and 1 tokens, padded on the right; no token of a text is the padding."""
    generator = torch.Generator().manual_seed(0)
    attention_mask = (torch.arange(12) < torch.tensor([[12], [7], [2], [1]])).long()
    ids = torch.randint(2, 40, (4, 12), generator=generator)
    return {"input_ids": ids.where(attention_mask == 1, pad_id), "attention_mask": attention_mask}


def token_types() -> torch.Tensor:
    return torch.randint(0, 2, (4, 12), generator=torch.Generator().manual_seed(1))


@every_family
@torch.inference_mode()
def test_logits_are_hugging_face_s(make_classifier, tmp_path, model_type):
    theirs = make_classifier(model_type)
    theirs.save_pretrained(tmp_path)
    own = load_dense(str(tmp_path))
    inputs, types = padded_inputs(theirs.config.pad_token_id), {"token_type_ids": token_types()}
    expected = theirs(**inputs, **(types if model_type in WITH_TYPES else {})).logits
    assert expected.std() > 0.1
    assert own(**inputs, **types).logits.numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    inputs["input_ids"] *= inputs["attention_mask"]  # the service pads with zeros
    assert own(**inputs, **types).logits.numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@every_family
def test_sizes_are_told(make_classifier, tmp_path, model_type):
    make_classifier(model_type).save_pretrained(tmp_path)
    own = load_dense(str(tmp_path))
    geometry = geometry_of(own)
    assert own.num_parameters() == geometry.parameters()
    assert (geometry.heads_L, geometry.neurons_L) == ((4, 4, 4), (24, 24, 24))
    assert geometry.embedding_size == (8 if model_type == "electra" else None)
    assert (geometry.token_types, geometry.max_positions, max_positions(str(tmp_path))) == (2, 12, 12)


@every_family
def test_dropout_is_the_backbone_s(make_classifier, tmp_path, model_type):
    names = {
        "distilbert": {"dropout": 0.2, "attention_dropout": 0.3, "seq_classif_dropout": 0.4},
    }.get(model_type, {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3, "classifier_dropout": 0.4})
    make_classifier(model_type, **names).save_pretrained(tmp_path)
    config = load_dense(str(tmp_path)).config
    found = (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.classifier_dropout)
    assert found == (0.2, 0.3, 0.4)


@every_family
def test_a_bare_encoder_gets_a_fresh_head(make_classifier, tmp_path, model_type):
    theirs = make_classifier(model_type)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.base_model.save_pretrained(tmp_path / "bare")
    whole = load_dense(str(tmp_path / "whole")).state_dict()
    torch.manual_seed(3)
    bare = load_dense(str(tmp_path / "bare"), id2label={0: "a", 1: "b"}).state_dict()
    torch.manual_seed(3)
    again = load_dense(str(tmp_path / "bare"), id2label={0: "a", 1: "b"}).state_dict()
    fresh = ("classifier.",) if model_type == "bert" else ("classifier.", "bert.pooler.")
    assert {name for name in whole if not torch.equal(whole[name], bare[name])} == {
        name for name in whole if name.startswith(fresh)
    }
    assert bare["classifier.weight"].shape == (2, 16)
    assert torch.equal(bare["classifier.weight"], again["classifier.weight"])


@every_family
def test_other_labels_replace_the_classifier_alone(make_classifier, tmp_path, model_type):
    make_classifier(model_type).save_pretrained(tmp_path)
    before, after = load_dense(str(tmp_path)), load_dense(str(tmp_path), id2label=dict(enumerate("abcde")))
    assert after.classifier.weight.shape == (5, 16)
    assert after.config.num_labels == 5
    old, new = before.bert.state_dict(), after.bert.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


BERT_LAST = "encoder.layer.2.output.dense.weight"


@pytest.mark.parametrize(
    ("model_type", "auto", "last"),
    [
        ("bert", AutoModelForPreTraining, BERT_LAST),
        ("electra", AutoModelForPreTraining, BERT_LAST),
        ("roberta", AutoModelForMaskedLM, BERT_LAST),
        ("xlm-roberta", AutoModelForMaskedLM, BERT_LAST),
        ("camembert", AutoModelForMaskedLM, BERT_LAST),
        ("distilbert", AutoModelForMaskedLM, "transformer.layer.2.ffn.lin2.weight"),
    ],
)
def test_what_the_hub_has_of_a_family_loads(make_classifier, tmp_path, model_type, auto, last):
    """Checkpoints with the heads of their pretraining."""
    theirs = auto.from_config(make_classifier(model_type).config)
    theirs.save_pretrained(tmp_path)
    encoder, own = theirs.base_model.state_dict(), load_dense(str(tmp_path)).bert.state_dict()
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(own[words], encoder[words])
    assert torch.equal(own[BERT_LAST], encoder[last])


def test_several_files_and_old_ones_load(make_classifier, tmp_path):
    theirs = make_classifier("roberta")
    theirs.save_pretrained(tmp_path / "one")
    theirs.save_pretrained(tmp_path / "several", max_shard_size="5KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    (tmp_path / "old").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
    one, *others = (load_dense(str(tmp_path / name)).state_dict() for name in ("one", "several", "old"))
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_loaded_is_saved_and_loaded_again(make_classifier, tmp_path):
    make_classifier("electra").save_pretrained(tmp_path / "theirs")
    own = load_dense(str(tmp_path / "theirs"))
    own.save_pretrained(tmp_path / "own")
    again = load_dense(str(tmp_path / "own"), id2label=dict(enumerate("abcd")))
    assert (again.config.pooler_activation, again.config.embedding_size, again.config.num_labels) == ("gelu", 8, 4)
    old, new = own.bert.state_dict(), again.bert.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_another_family_is_refused_with_those_we_take(tmp_path):
    GPT2Model(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=9, n_positions=8)).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=f"is a 'gpt2' model; {TAKEN}"):
        load_dense(str(tmp_path))
    with pytest.raises(BackboneError, match=f"is a 'gpt2' model; {TAKEN}"):
        max_positions(str(tmp_path))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": "deberta-v2"}, "a 'deberta-v2' model"),
        ({"model_type": "of-tomorrow", "auto_map": {"AutoConfig": "code.Config"}}, "a 'of-tomorrow' model"),
        ({"model_type": "roberta", "is_decoder": True}, "a decoder"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "a model with 'relative_key' positions"),
    ],
)  # fmt: skip
def test_what_we_do_not_take_is_told_from_its_configuration(tmp_path, values, reason):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(BackboneError, match=f"is {reason}; {TAKEN}"):
        load_dense(str(tmp_path))


def test_an_activation_that_cannot_be_exported_is_refused_when_the_model_is_loaded(make_classifier, tmp_path):
    model = make_classifier("bert")
    model.config.hidden_act = "silu"
    model.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="has the activation 'silu'; SparseBERT takes gelu, .*, gelu_new, .*, relu"):
        load_dense(str(tmp_path))


def test_a_decoder_is_refused(tmp_path):
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, is_decoder=True
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=f"is a decoder; {TAKEN}"):
        load_dense(str(tmp_path))


def test_positions_that_begin_nowhere_are_told(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "pad_token_id": None}))
    with pytest.raises(BackboneError, match="this 'roberta' model has no pad_token_id"):
        load_dense(str(tmp_path))


@pytest.mark.parametrize(
    ("model_type", "lost"),
    [
        ("bert", "bert.encoder.layer.1.attention.self.query.weight"),
        ("roberta", "roberta.embeddings.position_embeddings.weight"),
        ("distilbert", "distilbert.transformer.layer.2.ffn.lin1.bias"),
        ("electra", "electra.embeddings_project.weight"),
    ],
)
def test_a_checkpoint_without_its_encoder_is_refused(make_classifier, tmp_path, model_type, lost):
    make_classifier(model_type).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(lost)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=rf"no usable {lost} \(1 weights missing in all\)"):
        load_dense(str(tmp_path))
