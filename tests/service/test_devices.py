"""What a device may compute, what it is told, and which sentence ends the start when it is not there."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.devices import (
    EXTRAS,
    WHEELS,
    ArenaWatch,
    Device,
    Placement,
    Work,
    max_items,
    nodes_on_cpu,
    placement_problem,
    precision_problem,
    provider_problem,
    providers,
    wheels_problem,
)
from service.opening import num_workers
from service.settings import Settings, read_settings
from sparsebert.errors import ConfigError

CPU, CUDA, TENSORRT, OPENVINO = Device("cpu"), Device("cuda", 1), Device("tensorrt"), Device("openvino")
PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
EXTRA_REQUIREMENTS = PYPROJECT["project"]["optional-dependencies"]


def wheels_of(extra: str) -> set[str]:
    """The builds of ONNX Runtime that an extra brings, also through other extras."""
    found = set()
    for requirement in EXTRA_REQUIREMENTS[extra]:
        name, _, more = requirement.partition("[")
        if name == "sparsebert":
            found |= {wheel for one in more.partition("]")[0].split(",") for wheel in wheels_of(one)}
        found |= {name.partition(">")[0].partition("=")[0]} & set(WHEELS)
    return found


def test_each_device_s_extra_brings_its_own_build_and_no_other() -> None:
    assert {device: wheels_of(extra) for device, extra in EXTRAS.items()} == {
        "cpu": {"onnxruntime"},
        "cuda": {"onnxruntime-gpu"},
        "tensorrt": {"onnxruntime-gpu"},
        "openvino": {"onnxruntime-openvino"},
    }
    assert all(len(wheels_of(extra)) <= 1 for extra in EXTRA_REQUIREMENTS)


def test_extras_of_two_builds_exclude_each_other() -> None:
    excluded = {
        frozenset((one["extra"], other["extra"]))
        for group in PYPROJECT["tool"]["uv"]["conflicts"]
        for one in group
        for other in group
        if one != other
    }
    served = {"export", *EXTRAS.values()}
    clash = {frozenset((a, b)) for a in served for b in served if wheels_of(a) != wheels_of(b)}
    assert excluded == clash


def test_names() -> None:
    assert [str(one) for one in (CPU, CUDA, TENSORRT, OPENVINO)] == ["cpu", "cuda:1", "tensorrt:0", "openvino"]


def test_a_missing_provider_is_told_with_its_cure() -> None:
    available = ["AzureExecutionProvider", "CPUExecutionProvider"]
    assert provider_problem(available, {"onnxruntime": "1.32.0"}, CPU) is None
    assert provider_problem(available, {"onnxruntime": "1.32.0"}, CUDA) == (
        "--device cuda needs CUDAExecutionProvider, which onnxruntime 1.32.0 does not have; "
        "pip uninstall -y onnxruntime, then pip install --force-reinstall 'sparsebert[serve-gpu]'"
    )
    assert provider_problem(available, {}, OPENVINO) == (
        "--device openvino needs OpenVINOExecutionProvider, which ONNX Runtime does not have; "
        "pip install --force-reinstall 'sparsebert[serve-openvino]'"
    )


def test_two_builds_in_one_environment_are_told() -> None:
    assert wheels_problem({"onnxruntime": "1.32.0"}, CPU) is None
    assert wheels_problem({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, CUDA) == (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; pip uninstall -y "
        "onnxruntime onnxruntime-gpu, then pip install --force-reinstall 'sparsebert[serve-gpu]'"
    )


@pytest.mark.parametrize(
    ("precision", "device", "words"),
    [
        ("fp32", CPU, None),
        ("int8", CPU, None),
        ("fp16", CPU, "export fp32 or int8, or serve it with --device cuda"),
        ("fp32", CUDA, None),
        ("fp16", CUDA, None),
        ("int8", CUDA, "export with --precision fp16, or serve it with --device cpu"),
        ("fp16", TENSORRT, None),
        ("int8", TENSORRT, "export with --precision fp16 --operators standard, or"),
        ("fp32", OPENVINO, None),
        ("fp16", OPENVINO, "export fp32 with --operators standard, or"),
        ("int8", OPENVINO, "export with --precision fp32 --operators standard, or"),
    ],
)
def test_precisions(precision, device, words) -> None:
    problem = precision_problem(precision, device)
    assert problem is None if words is None else words in problem


def test_compute_that_lands_elsewhere_is_refused_and_numbers_about_shapes_are_not() -> None:
    on_gpu = [Placement("MatMul", "CUDAExecutionProvider"), Placement("Gather", "CUDAExecutionProvider")]
    shapes = [Placement("Shape", "CPUExecutionProvider"), Placement("Concat", "CPUExecutionProvider")]
    matmul = Placement("MatMul", "CPUExecutionProvider")
    assert placement_problem(on_gpu + shapes, CUDA) is None
    assert nodes_on_cpu(on_gpu + shapes, CUDA) == 2
    assert placement_problem([*on_gpu, matmul, matmul], CUDA) == (
        "has nodes that cuda cannot compute (2 MatMul); export with --precision fp16, or serve it with --device cpu"
    )
    # On TensorRT a whole graph is one engine: CUDA is not TensorRT.
    assert "(1 MatMul); export with --operators standard" in placement_problem([on_gpu[0], *shapes], TENSORRT)
    assert "(1 Shape)" in placement_problem(shapes[:1], OPENVINO)
    assert nodes_on_cpu([matmul], CPU) == 0


def test_cuda_computes_in_full_floats_and_takes_only_what_it_needs() -> None:
    assert providers(CUDA, Work()) == [
        (
            "CUDAExecutionProvider",
            {"device_id": "1", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"},
        )
    ]


def test_tensorrt_knows_every_shape_before_the_first_request() -> None:
    (name, options), cuda = providers(TENSORRT, Work(max_tokens=1024, max_length=128, cache="engines"))
    assert (name, cuda[0]) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1,token_type_ids:1x1"
    assert options["trt_profile_opt_shapes"] == "input_ids:4x64,attention_mask:4x64,token_type_ids:4x64"
    assert options["trt_profile_max_shapes"] == "input_ids:8x128,attention_mask:8x128,token_type_ids:8x128"
    assert (options["trt_engine_cache_path"], options["trt_engine_cache_enable"]) == ("engines", "1")
    assert "trt_engine_cache_path" not in providers(TENSORRT, Work())[0][1]


def test_openvino_has_a_stream_for_each_worker() -> None:
    options = {"device_type": "CPU", "num_streams": "4", "num_of_threads": "4"}
    assert providers(OPENVINO, Work(workers=4, threads=2)) == [("OpenVINOExecutionProvider", options)]
    assert providers(OPENVINO, Work(cache="kept"))[0][1]["cache_dir"] == "kept"


def test_batches_of_tensorrt_fit_its_shapes() -> None:
    assert [max_items(one, 1000, 128) for one in (CPU, CUDA, TENSORRT)] == [1000, 1000, 7]
    assert max_items(TENSORRT, 64, 128) == 1


def test_settings_follow_the_device() -> None:
    assert Settings().max_batch_tokens == 512
    assert Settings(max_batch_tokens=100).max_batch_tokens == 100
    on_gpu = read_settings(["--device", "cuda", "--device-id", "1"], {})
    assert (on_gpu.max_batch_tokens, num_workers(on_gpu)) == (16_384, 2)
    assert num_workers(read_settings(["--device", "tensorrt", "--threads", "1"], {})) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "gpu"], "--device .* is 'gpu': it must be one of cpu, cuda, tensorrt, openvino"),
        (["--device-id", "1"], "--device-id is 1, and --device cpu has only 0"),
        (["--device-cache", "kept"], "--device-cache is 'kept', and --device cpu keeps nothing"),
    ],
)
def test_bad_devices_are_refused(words, sentence) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_settings(words, {})


def test_memory_is_given_back_when_only_small_batches_came_for_long() -> None:
    watch = ArenaWatch()
    assert [watch.shrink_after(tokens) for tokens in [4000, *[1000] * 64]] == [False] * 64 + [True]
    assert not any(watch.shrink_after(1000) for _ in range(200))


@given(st.lists(st.integers(1, 16_384), max_size=300))
def test_memory_is_never_given_back_sooner(sizes) -> None:
    watch, since = ArenaWatch(), 0
    for tokens in sizes:
        since += 1
        if watch.shrink_after(tokens):
            assert since >= 64
            since = 0
