"""GPUs that are there, GPUs that are not, and their memory. What needs a real one is in tests/export/test_gpu.py."""

import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
from starlette.testclient import TestClient

from service import onnx_engine, provider
from service.app import create_app
from service.bundles import open_bundle
from service.devices import Device
from service.encoding import Encoding, pad
from service.engine import Halt
from service.gpus import CudaDriver, FixedGpuMemory, GpuUse, NvmlMemory, check_gpu, watch_gpu
from service.keys import KeyRing, Scope, make_key
from service.onnx_engine import OnnxEngine
from service.provider import installed_wheels, prepare
from service.settings import Settings
from service.variants import load_catalog
from sparsebert.errors import BundleError, ConfigError

TEXT = (2, 4, 8, 3)
BATCH = pad([Encoding(input_ids=TEXT, token_type_ids=(0,) * len(TEXT), num_tokens_full=len(TEXT))])
CUDA = Device("cuda")
HAS_CUDA = CUDA.provider in onnxruntime.get_available_providers() and Path("/dev/nvidiactl").exists()


class TwoGpus:
    """A double of the driver."""

    def count(self) -> int:
        return 2

    def pci_bus_id(self, index: int) -> str:
        return f"0000:0{index}:00.0"


class NoGpu(TwoGpus):
    def count(self) -> int:
        return 0


def test_the_gpu_asked_for_must_be_there() -> None:
    check_gpu(Device("cuda", 1), TwoGpus())
    with pytest.raises(ConfigError, match="--device-id is 2, but of the GPUs .* there is only 0, 1; choose another"):
        check_gpu(Device("cuda", 2), TwoGpus())
    with pytest.raises(ConfigError, match="there is none; .*or serve with --device cpu"):
        check_gpu(CUDA, NoGpu())


def test_no_driver_is_told_with_its_cure() -> None:
    with pytest.raises(ConfigError, match="there is no NVIDIA driver .*; install it, in a container start with --gpus"):
        CudaDriver("libnothing-of-this-name.so.1").count()


@pytest.mark.skipif(HAS_CUDA, reason="there is NVML here")
def test_a_gpu_without_nvml_is_served_and_the_lack_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="NVML cannot be asked .*; see what nvidia-smi says"):
        NvmlMemory("0000:01:00.0", process_id=1)
    assert watch_gpu(CUDA, TwoGpus()) is None
    assert "GPU memory is not told in the metrics: NVML cannot be asked" in caplog.text
    assert watch_gpu(Device("cpu"), NoGpu()) is None


def test_without_the_package_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigError, match=r"nvidia-ml-py is not installed; pip install 'sparsebert\[serve-gpu\]'"):
        NvmlMemory("0000:01:00.0", process_id=1)


def test_the_start_ends_when_the_build_has_no_such_provider() -> None:
    prepare(Device("cpu"), installed_wheels(), NoGpu())
    for device in {"cuda", "openvino"} - {"cuda" if HAS_CUDA else ""}:
        if Device(device).provider not in onnxruntime.get_available_providers():
            with pytest.raises(ConfigError, match=f"--device {device} needs .*; pip uninstall -y onnxruntime"):
                prepare(Device(device), installed_wheels(), TwoGpus())


def test_a_provider_that_is_built_in_and_does_not_start_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu without CUDA's libraries does: the session that it gives is one on the CPU."""
    monkeypatch.setattr(provider.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(provider, "providers", lambda device, work: ["CPUExecutionProvider"])
    with pytest.raises(
        ConfigError, match=r"CUDAExecutionProvider cannot start \(.*libonnxruntime_providers_\w+\.so.*\); pip"
    ):
        prepare(CUDA, {"onnxruntime-gpu": "1.31.1"}, TwoGpus())


def test_a_session_on_another_provider_is_no_answer(
    tmp_path: Path, write_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_engine, "providers", lambda device, work: ["CPUExecutionProvider"])
    with pytest.raises(BundleError, match="opened by CPUExecutionProvider in place of CUDAExec"):
        OnnxEngine(write_bundle(tmp_path) / "model.onnx", threads=1, device=CUDA)


def test_bound_tensors_give_the_same_and_are_stopped_the_same(
    tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    graph = write_bundle(tmp_path) / "model.onnx"
    fed, bound = OnnxEngine(graph, threads=1), OnnxEngine(graph, threads=1, bind_to="cpu")
    assert bound.run(BATCH, Halt()).tolist() == fed.run(BATCH, Halt()).tolist()
    halt = Halt()
    halt.request()
    with pytest.raises(Exception, match="terminate flag"):
        bound.run(BATCH, halt)
    assert bound.run(BATCH, Halt()).tolist() == fed.run(BATCH, Halt()).tolist()


ADMIN_PLAIN, ADMIN_KEY = make_key("operator", Scope.ADMIN, None, lambda size: "k" * size)


def use(device: int, process: int | None) -> GpuUse:
    return GpuUse(device_bytes=device, process_bytes=process)


@pytest.mark.parametrize(
    ("uses", "growth"),
    [
        ([use(900, 100), use(5000, 350)], 250),
        ([use(900, None), use(5000, None)], 4100),
        ([use(900, 100), None], None),
        ([use(900, 100), use(900, 50)], 0),
    ],
)
def test_what_a_variant_takes_of_the_gpu(tmp_path, write_bundle, uses, growth) -> None:
    gpu = FixedGpuMemory(*uses)
    bundle = open_bundle(
        write_bundle(tmp_path),
        lambda graph: OnnxEngine(graph, threads=1, gpu=gpu),
        max_batch_tokens=64,
        clock_s=lambda: 0.0,
    )
    assert bundle.gpu_memory_bytes == growth


def test_metrics_tell_the_memory_of_the_gpu(models_folder: Path) -> None:
    gpu = FixedGpuMemory(use(900, 100), use(1000, 150), use(900, 150), use(2000, None))
    settings = Settings(models=models_folder, threads=1, device="cuda", variants="dense")

    def open_engine(graph: Path) -> OnnxEngine:
        return OnnxEngine(graph, threads=1, gpu=gpu)

    catalog = load_catalog(settings, open_engine, lambda: 0.0)
    with TestClient(create_app(settings, catalog, open_engine=open_engine)) as client:
        first, second = client.get("/metrics").text, client.get("/metrics").text
        [told] = client.get("/v1/models").json()["variants"]
    assert 'sparsebert_gpu_memory_used_bytes{device="cuda:0",scope="device"} 900.0' in first
    assert 'sparsebert_gpu_memory_used_bytes{device="cuda:0",scope="process"} 150.0' in first
    assert 'sparsebert_gpu_memory_used_bytes{device="cuda:0",scope="process"} NaN' in second
    assert 'sparsebert_model_memory_bytes{kind="gpu_load_delta",model="reviews",variant="dense"} 50.0' in first
    assert (told["gpu_memory_bytes"], told["nodes_on_cpu"]) == (50, 0)


def test_the_memory_of_the_gpu_is_told_when_nothing_is_loaded_any_more(models_folder: Path) -> None:
    gpu = FixedGpuMemory(use(900, 100), use(1000, 150), use(1000, 150), use(800, 20))
    settings = Settings(models=models_folder, threads=1, device="cuda", variants="dense")

    def open_engine(graph: Path) -> OnnxEngine:
        return OnnxEngine(graph, threads=1, gpu=gpu)

    catalog = load_catalog(settings, open_engine, lambda: 0.0)
    app = create_app(settings, catalog, open_engine=open_engine, ring=KeyRing(keys=(ADMIN_KEY,)))
    del catalog
    with TestClient(app, headers={"X-API-Key": ADMIN_PLAIN}) as client:
        assert 'used_bytes{device="cuda:0",scope="process"} 150.0' in client.get("/metrics").text
        assert client.post("/v1/admin/models/reviews/variants/dense/unload").json()["gone"]
        after = client.get("/metrics").text
    assert 'sparsebert_gpu_memory_used_bytes{device="cuda:0",scope="device"} 800.0' in after
    assert 'sparsebert_gpu_memory_used_bytes{device="cuda:0",scope="process"} 20.0' in after
