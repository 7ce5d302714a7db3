"""The models that come with the package: load the one for a picture size, or for a file."""

from iwcodec.codec.arguments import check_type
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.errors import CodecError, FormatError, OptionError, VersionError
from iwcodec.models.runtime.load import load_runtime as load_model
from iwcodec.models.runtime.types import ModelInfo, Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL, list_models, read_info


def load_runtime(model: str = DEFAULT_MODEL, kind: str = "auto", threads: int | None = None) -> Runtime:
    """Load a shipped model into a runtime.

    `kind`: "onnx" (CPU), "torch" (PyTorch on CUDA if available), "cuda" (one CUDA graph per frame) or "auto" (cuda
    where there is a GPU that can run it, else onnx). `threads`: of ONNX Runtime. Raises OptionError for an unknown
    model or kind, CodecError if the kind needs a package or device that is missing.
    """
    check_type("model", model, str)
    check_type("kind", kind, str)
    check_type("threads", threads, int, None)
    try:
        return load_model(model, kind, threads)
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise OptionError(f"The model {model!r} cannot be loaded: {error}.") from error
    except (ImportError, RuntimeError) as error:
        raise CodecError(f"A runtime of the kind {kind!r} cannot be used here: {error}.") from error


def load_runtime_for(size: int, threads: int | None = None) -> Runtime:
    """Load the shipped model for pictures of `size` pixels. Raises OptionError if there is none."""
    sizes = shipped_sizes()
    if size not in sizes:
        raise OptionError(f"There is no model for pictures of {size} pixels: give {' or '.join(map(str, sizes))}.")
    return load_runtime(f"lite-{size}", threads=threads)


def shipped_sizes() -> list[int]:
    """Return the sides of the pictures that the shipped models make, in pixels."""
    names = (name for name in list_models() if name.startswith("lite-"))
    return sorted(int(size) for size in (name.removeprefix("lite-") for name in names) if size.isdecimal())


def load_runtime_of(header: Header) -> Runtime:
    """Load the shipped model for a file's picture size. Raises VersionError, which names the model that the file needs,
    if there is none; FormatError if that model makes other pictures."""
    if header.size in shipped_sizes():
        return load_runtime_for(header.size)
    if header.model_id in list_models():
        check_model(header, read_info(header.model_id))
    raise VersionError(
        f"This file needs the model {header.model_id} ({header.model_digest.hex()}), which is not installed."
    )


def check_model(header: Header, info: ModelInfo) -> None:
    """Raise VersionError, which names both models, if a file needs another model than the loaded one; FormatError if
    the header contradicts the model."""
    if (header.model_id, header.model_digest) != (info.model_id, info.digest):
        raise VersionError(
            f"This file needs the model {header.model_id} ({header.model_digest.hex()}); "
            f"this installation has {info.model_id} ({info.digest.hex()})."
        )
    for name in ("size", "keypoints"):
        if getattr(header, name) != getattr(info, name):
            raise FormatError(
                f"The header is wrong: its {name} is {getattr(header, name)}, that of the model {info.model_id} "
                f"{getattr(info, name)}."
            )
