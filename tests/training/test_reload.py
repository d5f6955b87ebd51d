"""The compact model outside this project: loaded, fine-tuned further and pushed with Transformers alone."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

import training.modeling
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

SOURCE = Path(training.modeling.__file__)
ALONE = """
import sys

class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("training", "sparsebert", "export"):
            raise ImportError(name)

sys.meta_path.insert(0, NotHere())
import torch
from transformers import AutoModelForSequenceClassification

for folder in sys.argv[1:]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(6)[None]).logits
    model.save_pretrained("again")
    print(type(model).__module__.split(".")[0], model.config.heads_L(), logits[0].tolist())
"""


@pytest.fixture(scope="module")
def compact_dir(tmp_path_factory) -> Path:
    """A model of three uneven layers, with ELECTRA's embeddings and pooler."""
    torch.manual_seed(1)
    config = SparseBertConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24, head_size=4,
        heads_per_layer=[1, 0, 4], neurons_per_layer=[5, 24, 0], embedding_size=8, pooler_activation="gelu",
        initializer_range=0.2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("compact")
    SparseBertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tuned_dir(compact_dir, tmp_path_factory) -> Path:
    """The same after two steps of the Hugging Face Trainer."""
    model = AutoModelForSequenceClassification.from_pretrained(compact_dir, trust_remote_code=False)
    rows = [{"input_ids": [2, 5 + i, 3], "attention_mask": [1, 1, 1], "labels": i % 2} for i in range(8)]
    folder = tmp_path_factory.mktemp("tuned")
    arguments = TrainingArguments(
        output_dir=str(folder / "work"), max_steps=2, per_device_train_batch_size=4, learning_rate=0.01,
        report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    assert trainer.train().global_step == 2
    assert trainer.evaluate()["eval_loss"] > 0
    trainer.save_model(str(folder / "saved"))
    return folder / "saved"


def test_the_trainer_changes_every_weight_and_keeps_the_sizes(compact_dir, tuned_dir):
    before, after = (load_file(folder / "model.safetensors") for folder in (compact_dir, tuned_dir))
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert [name for name in still if not name.endswith("key.bias")] == []  # softmax does not see it
    model = AutoModelForSequenceClassification.from_pretrained(tuned_dir, trust_remote_code=False)
    assert isinstance(model, SparseBertForSequenceClassification)
    assert (model.config.heads_L(), model.config.neurons_L()) == ([1, 0, 4], [5, 24, 0])


def test_own_code_is_used_where_it_is_imported(compact_dir):
    model = AutoModelForSequenceClassification.from_pretrained(compact_dir, trust_remote_code=True)
    assert isinstance(model, SparseBertForSequenceClassification)


@torch.inference_mode()
def test_a_folder_works_without_this_project(compact_dir, tuned_dir, tmp_path):
    """A process that cannot import this project loads the model, as it was and as the Trainer saved it."""
    result = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, compact_dir, tuned_dir],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"HF_HOME": str(tmp_path / "home")}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    shown = []
    for folder in (compact_dir, tuned_dir):
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        shown.append(f"transformers_modules [1, 0, 4] {model(input_ids=torch.arange(6)[None]).logits[0].tolist()}")
    assert result.stdout.splitlines() == shown
    assert (tmp_path / "again" / "modeling.py").read_bytes() == SOURCE.read_bytes()


def test_the_code_beside_the_weights_is_the_model_file(compact_dir):
    assert (compact_dir / "modeling.py").read_bytes() == SOURCE.read_bytes()
    config = json.loads((compact_dir / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "modeling.SparseBertConfig",
        "AutoModelForSequenceClassification": "modeling.SparseBertForSequenceClassification",
    }


def test_the_model_file_needs_transformers_alone():
    tree = ast.parse(SOURCE.read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert others == {"torch", "transformers", "huggingface_hub"}


BATCH = {
    "input_ids": torch.tensor([[2, 5, 3, 9], [2, 7, 8, 3]]),
    "attention_mask": torch.tensor([[1] * 3 + [0], [1] * 4]),
}


def reloaded(folder, **changes):
    return AutoModelForSequenceClassification.from_pretrained(folder, ignore_mismatched_sizes=True, **changes).eval()


@torch.inference_mode()
def test_the_loss_is_that_of_the_problem(compact_dir):
    one, three = reloaded(compact_dir, num_labels=1), reloaded(compact_dir, num_labels=3)
    several = reloaded(compact_dir, num_labels=3, problem_type="multi_label_classification")
    wanted, both = torch.tensor([0.5, 2.0]), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    scores = one(**BATCH, labels=wanted)
    assert scores.loss == pytest.approx(float(((scores.logits[:, 0] - wanted) ** 2).mean()))
    marks = several(**BATCH, labels=both)
    assert marks.loss == functional.binary_cross_entropy_with_logits(marks.logits, both)
    classes = three(**BATCH, labels=torch.tensor([0, 2]))
    assert classes.loss == functional.cross_entropy(classes.logits, torch.tensor([0, 2]))


@torch.inference_mode()
def test_what_transformers_asks_its_models(compact_dir):
    model = reloaded(compact_dir)
    logits = model(**BATCH).logits
    assert torch.equal(model(**BATCH, return_dict=False)[0], logits)
    embedded = model.get_input_embeddings()(BATCH["input_ids"])
    assert torch.equal(model(inputs_embeds=embedded, attention_mask=BATCH["attention_mask"]).logits, logits)
    assert torch.equal(model(**BATCH, position_ids=torch.arange(4)[None]).logits, logits)
    assert not torch.equal(model(**BATCH, position_ids=torch.arange(4)[None] + 3).logits, logits)
    with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
        model(**BATCH, inputs_embeds=embedded)
    with pytest.raises(ValueError, match="SparseBERT gives no attentions"):
        model(**BATCH, output_attentions=True)
    assert model(**BATCH).hidden_states is None
    model.config.output_hidden_states = True
    assert len(model(**BATCH).hidden_states) == 4
    assert model(**BATCH, output_hidden_states=False).hidden_states is None


def test_gradient_checkpointing_gives_the_same_gradients(compact_dir):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = reloaded(compact_dir)
        model.train()
        model.set_dropout(0.0)
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
        gradients.append(model.bert.encoder.layer[0].attention.self.query.weight.grad)
    assert gradients[0].abs().sum() > 0
    assert torch.allclose(*gradients)
