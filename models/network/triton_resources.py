"""Resources of the Triton kernel as compiled for a GPU that need not be present: registers, spills, instructions."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton

from iwcodec.models.network.attention_triton import WARPS, constants, topk_kernel


@dataclass(frozen=True)
class Resources:
    """Resources of the compiled kernel as ptxas reports them: per thread (registers, spills) and per program (shared
    memory)."""

    capability: int
    dtype: str
    k: int
    registers: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int
    threads: int
    tensor_core_instructions: int
    tile_instructions: int
    """Instructions of a warp for a tile from which no key enters a list."""
    turn_instructions: int
    """Instructions of a warp for one iteration of the selection."""


def resources(capability: int, k: int) -> Resources:
    """Compile the kernel for a compute capability (80 for sm_80): the lite network with four sources, in fp16.

    Raises RuntimeError in a process that runs Triton's interpreter (TRITON_INTERPRET=1), which cannot compile.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: this process cannot compile")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    fixed = constants(torch.float16, 32, k, 4096, 4, 64)
    pointers = dict.fromkeys(("queries", "keys", "rows", "extra_keys"), "*fp16")
    pointers |= dict.fromkeys(("query_geometry", "key_geometry", "extra_geometry", "extra_rows", "out"), "*fp32")
    pointers |= dict.fromkeys(("table", "counts"), "*i32")
    types = {name: "constexpr" if name in fixed else pointers.get(name, "i32") for name in topk_kernel.arg_names}
    # A launch detects this itself: allocated pointers are aligned to 16 bytes, N and M are multiples of 16.
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, n in enumerate(topk_kernel.arg_names) if n in pointers or n in "NM"
    }
    built = triton.compile(
        ASTSource(topk_kernel, types, fixed, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": WARPS},
    )
    report = ptxas(built.asm["ptx"], capability)
    registers, stores, loads = (
        int(re.search(pattern, report)[1])  # type: ignore[index]
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes spill loads")
    )
    return Resources(
        capability,
        "fp16",
        k,
        registers,
        stores,
        loads,
        built.metadata.shared,
        32 * built.metadata.num_warps,
        len(re.findall(r"^\s*(?:wgmma\.mma_async|mma)\.sync", built.asm["ptx"], re.M)),
        *loop_lengths(built.asm["cubin"]),
    )


def loop_lengths(cubin: bytes) -> tuple[int, int]:
    """Count the machine instructions of the loop over tiles, without the selection loop inside it, and of the
    selection."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "-sass", str(file)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", listing)]
    jumps = ((at, re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)) for at, text in code)
    loops = [(int(to[1], 16), at) for at, to in jumps if to is not None and int(to[1], 16) < at]
    # The first loop with another inside it; each ends in its backward jump.
    (first, last), inner = next((a, b) for a in loops for b in loops if a[0] < b[0] and b[1] < a[1])
    size = code[1][0] - code[0][0]
    turn = (inner[1] - inner[0]) // size + 1
    return (last - first) // size + 1 - turn, turn


def ptxas(ptx: str, capability: int) -> str:
    """Assemble with the ptxas that Triton ships and return its verbose report."""
    from triton.backends.nvidia.compiler import get_ptxas

    arch = re.search(r"\.target (sm_\w+)", ptx)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [get_ptxas(capability).path, "-v", f"-arch={arch[1] if arch else f'sm_{capability}'}"]
        done = subprocess.run(
            [*command, str(file), "-o", str(file) + ".cubin"], capture_output=True, text=True, check=True
        )
    return done.stdout + done.stderr
