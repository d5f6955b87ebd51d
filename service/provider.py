"""Can ONNX Runtime compute on a device here: is it the right build, and does the provider of the device start?

With `service.onnx_engine` the only file that imports ONNX Runtime. Knows nothing about bundles.
"""

import contextlib
import ctypes
import importlib.util
import io
import logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import onnxruntime as ort

from service.devices import EXTRAS, WHEELS, Device, Work, provider_problem, providers, wheels_problem
from service.gpus import Driver, check_gpu
from service.onnx_engine import SILENT
from sparsebert.errors import ConfigError

log = logging.getLogger(__name__)

# The smallest graph there is: one Abs.
PROBE = (
    b'\x08\x08\x12\x00:2\n\x0b\n\x01x\x12\x01y"\x03Abs\x12\x01pZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")


def installed_wheels() -> dict[str, str]:
    """The builds of ONNX Runtime in this environment, and their versions."""
    found = {}
    for name in WHEELS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def prepare(device: Device, wheels: Mapping[str, str], driver: Driver) -> None:
    """Make ready to compute on a device. Raises ConfigError, with the cure, when that is not possible here."""
    problem = wheels_problem(wheels, device) or provider_problem(ort.get_available_providers(), wheels, device)
    if problem:
        raise ConfigError(problem)
    if device.on_gpu:
        check_gpu(device, driver)
        _load_libraries(device)
    if device.name != "cpu":
        _probe(device)


def _probe(device: Device) -> None:
    """Open the smallest graph: a provider that is built in may still not start."""
    ort.set_default_logger_severity(SILENT)
    try:
        session = ort.InferenceSession(PROBE, providers=providers(device, Work()), enable_fallback=0)
    except Exception as error:
        raise ConfigError(_cannot_start(device, _reason(device) or str(error).partition("\n")[0])) from error
    if session.get_providers()[0] != device.provider:
        raise ConfigError(_cannot_start(device, _reason(device) or "ONNX Runtime does not say why"))


def _cannot_start(device: Device, reason: str) -> str:
    return (
        f"{device.provider} cannot start ({reason}); "
        f"pip install 'sparsebert[{EXTRAS[device.name]}]' brings its libraries, or serve with --device cpu"
    )


def _load_libraries(device: Device) -> None:
    """Those that pip installed are not where the loader looks."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    log.debug("CUDA libraries: %s", said.getvalue().strip())
    found = importlib.util.find_spec("tensorrt_libs") if device.name == "tensorrt" else None
    for folder in (found.submodule_search_locations or []) if found else []:
        for name in TENSORRT_LIBRARIES:
            with contextlib.suppress(OSError):  # what is missing is told by the provider's own library
                ctypes.CDLL(str(Path(folder) / name))


def _reason(device: Device) -> str:
    """What the loader says of the provider's library; empty when nothing. ONNX Runtime only logs it."""
    folder = Path(ort.__file__).parent / "capi"
    try:
        # Its symbols are what the other needs, as when ONNX Runtime itself loads both.
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{device.name}.so"))
    except OSError as error:
        return str(error)
    return ""
