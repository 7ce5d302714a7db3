"""Every error a user may see. The message is one clear sentence; no traceback is needed to understand it."""


class CodecError(Exception):
    """Something the user can act on; the base of all errors this package raises on purpose."""


class FormatError(CodecError):
    """Bytes from elsewhere (a file, the network) that are not what they should be."""


class VersionError(FormatError):
    """Bytes written by another version of the format or for another model."""


class MediaError(CodecError):
    """A video or sound file that cannot be read, or an output that cannot be written."""


class NoFaceError(CodecError):
    """No face was found where one is needed."""
