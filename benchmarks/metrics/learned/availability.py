"""The error of metrics that need something optional."""

from iwcodec.codec.errors import CodecError


class MetricUnavailableError(CodecError):
    """A metric needs a program, package or weight file that this machine does not have."""
