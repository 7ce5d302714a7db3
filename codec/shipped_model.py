"""The models that come with the package: load the one for a picture size, or for a file."""

from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.errors import CodecError, VersionError
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import ModelInfo, Runtime


def load_runtime_for(size: int, threads: int | None = None) -> Runtime:
    """Load the shipped model for pictures of `size` pixels. Raises CodecError if there is none."""
    try:
        return load_runtime(f"lite-{size}", threads=threads)
    except FileNotFoundError as error:
        raise CodecError(f"There is no model for pictures of {size} pixels: {error}.") from error


def load_runtime_of(header: Header) -> Runtime:
    """Load the shipped model for a file's picture size. Raises VersionError, which names the model that the file needs,
    if there is none."""
    try:
        return load_runtime_for(header.size)
    except CodecError as error:
        raise VersionError(
            f"This file needs the model {header.model_id} ({header.model_digest.hex()}), which is not installed."
        ) from error


def check_model(header: Header, info: ModelInfo) -> None:
    """Raise VersionError, which names both models, if a file needs another model than the loaded one."""
    if (header.model_id, header.model_digest) != (info.model_id, info.digest):
        raise VersionError(
            f"This file needs the model {header.model_id} ({header.model_digest.hex()}); "
            f"this installation has {info.model_id} ({info.digest.hex()})."
        )
