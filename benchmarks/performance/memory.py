"""Memory of this process."""

import sys

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install


def resident_mb() -> float:
    """Resident memory in MiB. Raises CodecError without psutil."""
    try:
        import psutil
    except ImportError as error:
        raise CodecError(f"bench speed needs psutil: {install('bench')}.") from error
    return float(psutil.Process().memory_info().rss / 2**20)


def peak_mb() -> float:
    """Peak resident memory of this process in MiB."""
    import psutil

    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
