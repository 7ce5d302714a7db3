"""Random jobs for the CUDA runtime; needs PyTorch."""

import numpy as np

from iwcodec.models.runtime.cuda import CudaRuntime, Job


def noise_pictures(count: int, seed: int = 0, size: int = 64) -> np.ndarray:
    """Pictures (count, size, size, 3) of noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def random_jobs(runtime: CudaRuntime, counts: list[int]) -> list[Job]:
    """One job for each of these numbers of sources."""
    jobs, size = [], runtime.info.size
    for seed, count in enumerate(counts):
        driving = runtime.detect(noise_pictures(1, 100 + seed, size)[0])
        jobs.append(Job(driving, [runtime.prepare(picture) for picture in noise_pictures(count, seed, size)]))
    return jobs
