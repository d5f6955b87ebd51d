import json

import pytest
from pydantic import ValidationError

from sparsebert.errors import CheckpointError
from sparsebert.geometry import Geometry
from sparsebert.manifest import Task
from sparsebert.sensitivity import LayerSensitivity, Quality, RemovedShare, Sensitivity, read_sensitivity, render


def quality(loss, accuracy):
    return Quality(loss=loss, accuracy=accuracy)


def make_layer(*head_losses):
    return LayerSensitivity(
        without_head=tuple(quality(loss, 0.9) for loss in head_losses),
        without_neurons=(
            RemovedShare(share=0.25, neurons=2, without=quality(0.31, 0.89)),
            RemovedShare(share=1.0, neurons=8, without=quality(0.6, 0.75)),  # the block: shown once
        ),
        without_attention=quality(0.7, 0.7),
        without_ffn=quality(0.6, 0.75),
    )


def make_record(**changes):
    values = {
        "model": "minilm", "task": Task(name="sst2", pair=False), "data": "sst2", "num_examples": 872,
        "num_scored": 2048, "dense": quality(0.3, 0.9), "duration_s": 1.5, "versions": {},
        "geometry": Geometry(hidden_size=8, head_size=4, heads_L=(2, 2), neurons_L=(8, 8), vocabulary_size=9,
                             max_positions=8, token_types=2, num_labels=2),
        "layers": (make_layer(0.35, 0.29), make_layer(0.3, 0.305)),
    }  # fmt: skip
    return Sensitivity(**(values | changes))


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "s.json").write_text(make_record().model_dump_json())
    assert read_sensitivity(tmp_path / "s.json") == make_record()


def test_the_summary_names_what_is_costliest_and_cheapest():
    first, *others = render(make_record()).splitlines()
    assert first.startswith("dense: loss 0.3000, accuracy 90.00% on 872 examples; without a part, change of loss")
    assert others == [
        "",
        "layer     costliest head      cheapest head        attention      25% of FFN              FFN",
        "    0  0: +0.0500 (+0.0)  1: -0.0100 (+0.0)  +0.4000 (-20.0)  +0.0100 (-1.0)  +0.3000 (-15.0)",
        "    1  1: +0.0050 (+0.0)  0: +0.0000 (+0.0)  +0.4000 (-20.0)  +0.0100 (-1.0)  +0.3000 (-15.0)",
        "",
        "costliest head:  head 0 of layer 0, +0.0500 (+0.0)",
        "cheapest head:   head 1 of layer 0, -0.0100 (+0.0)",
        "costliest block: attention of layer 1, +0.4000 (-20.0)",
        "cheapest block:  FFN of layer 0, +0.3000 (-15.0)",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"layers": []}, "layers and heads must be those of the geometry"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"dense": {"loss": 0.3, "accuracy": 1.2}}, "dense.accuracy: Input should be less than or equal to 1"),
    ],
)
def test_a_malformed_record_is_told(tmp_path, change, message):
    values = json.loads(make_record().model_dump_json()) | change
    (tmp_path / "s.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=f"is no sensitivity record: .*{message}"):
        read_sensitivity(tmp_path / "s.json")


def test_a_missing_record_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read; make it with 'sparsebert sensitivity'"):
        read_sensitivity(tmp_path / "s.json")


def test_heads_must_be_all_there():
    with pytest.raises(ValidationError, match="must be those of the geometry"):
        make_record(layers=(make_layer(0.3, 0.3), make_layer(0.3)))
