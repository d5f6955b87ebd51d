import pytest
import torch
from transformers import BertForSequenceClassification

from sparsebert.errors import BackboneError
from training.loading import load_dense


@pytest.fixture
def reviewer(bert_dir, tmp_path):
    """A function that saves a classifier of Hugging Face with given names for its answers."""

    def save(*names):
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        model = BertForSequenceClassification.from_pretrained(bert_dir, num_labels=len(names), **labels)
        model.save_pretrained(tmp_path)
        return model

    def load(*, whole=True):
        return load_dense(str(tmp_path), whole=whole, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})

    return save, load


@pytest.mark.parametrize("names", [("No", "YES"), ("LABEL_0", "LABEL_1")])
def test_a_classifier_of_the_same_labels_is_taken(reviewer, caplog, names):
    save, load = reviewer
    theirs = save(*names)
    assert torch.equal(load().classifier.weight, theirs.classifier.weight)
    assert "taken for the same" not in caplog.text


def test_labels_of_other_names_are_told(reviewer, caplog):
    save, load = reviewer
    theirs = save("bad", "good")
    assert torch.equal(load().classifier.weight, theirs.classifier.weight)
    assert "answers bad, good, the data have no, yes; they are taken for the same, in this order" in caplog.text


@pytest.mark.parametrize("names", [("yes", "no"), ("no", "maybe", "yes")])
def test_labels_in_another_order_or_number_are_refused(reviewer, names):
    save, load = reviewer
    save(*names)
    with pytest.raises(BackboneError, match=f"answers {', '.join(names)}, the data have no, yes; .* --epochs"):
        load()


def test_a_classifier_of_other_labels_that_is_replaced_is_told(reviewer, tmp_path, caplog):
    save, load = reviewer
    theirs = save("no", "perhaps", "yes")
    loaded = load(whole=False)
    told = f"{tmp_path}: its classifier of no, perhaps, yes is replaced by a new one: the data have no, yes"
    assert [record.getMessage() for record in caplog.records if record.name == "training.loading"] == [told]
    assert loaded.classifier.weight.shape == (2, 16)
    assert torch.equal(loaded.bert.embeddings.word_embeddings.weight, theirs.bert.embeddings.word_embeddings.weight)


def test_a_classifier_of_as_many_labels_of_other_names_that_is_kept_is_told(reviewer, tmp_path, caplog):
    save, load = reviewer
    theirs = save("yes", "no")
    loaded = load(whole=False)
    told = (
        f"{tmp_path}: its classifier of yes, no is where the fine-tuning starts: the data have no, yes, in this order"
    )
    assert [record.getMessage() for record in caplog.records if record.name == "training.loading"] == [told]
    assert torch.equal(loaded.classifier.weight, theirs.classifier.weight)


def test_a_classifier_that_is_kept_or_was_never_there_is_not_told(reviewer, bert_dir, caplog):
    save, load = reviewer
    theirs = save("no", "yes")
    assert torch.equal(load(whole=False).classifier.weight, theirs.classifier.weight)
    load_dense(str(bert_dir), id2label=dict(enumerate("abc")))
    assert not [record for record in caplog.records if record.name == "training.loading"]


def test_an_encoder_without_classifier_is_not_whole(bert_dir):
    with pytest.raises(BackboneError, match="has no classifier for 2 labels; .* --epochs of at least 1"):
        load_dense(str(bert_dir), whole=True)
    assert load_dense(str(bert_dir)).config.num_labels == 2
