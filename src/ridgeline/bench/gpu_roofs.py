"""The cases that measure the ceilings of a GPU: bandwidth of L2 and main memory, arithmetic rate of each precision."""

from __future__ import annotations

from ridgeline.analytical.device import Device
from ridgeline.analytical.operators import STREAM_ARRAYS, Fma, Stream
from ridgeline.bench.devices.unit import RoofSpec

L2_SHARE = 0.4
"""Working set of the L2 cases in L2s: it must stay there whole, beside what else the card keeps there."""
L2_LAUNCH_BYTES = 2e9
"""Bytes of one call of the L2 cases: 0.2 to 1 ms, so that starting the kernel is nothing."""
MEMORY_FACTOR = 4.0
LEAST_MEMORY_BYTES = 2.0**30
"""Working set of the main memory cases at least. With 256 MiB an H200 gave 4.1 TB/s, of which its start and its last
wave took a twentieth: decode attention over 537 MB was faster than that roof."""
MOST_READ_ELEMENTS = 2**28
"""``read``'s tolerance holds for sums of up to 2^28 elements."""
TILE = 128
"""Edge of the accumulator tile of ``triton_matrix``."""
MATRIX: dict[str, tuple[int, int]] = {
    "bfloat16": (32, 4096),
    "float16": (32, 4096),
    "tfloat32": (16, 4096),
    "int8": (64, 4096),
    # On sm_90 sums of float8 products keep about 14 bits: on an H200 512 iterations were off by 0.124, over the tolerance.
    "float8_e4m3fn": (64, 256),
}
"""Depth and iterations of each precision: 512 bits of depth; 0.1 to 5 ms a launch on cards from 60 TFLOP/s on."""
PROGRAMS_PER_MULTIPROCESSOR = 2
"""Two tiles on a multiprocessor, so that one computes while the other waits."""
VECTOR: dict[str, int] = {"float32": 8192, "float64": 1024}
"""Iterations; float64 runs at 1/64 of float32's rate on workstation cards."""
VECTOR_SHAPE = (8, 128)
"""Chains and lanes of a program of ``triton_vector``: 8 accumulators in each thread of 4 warps."""
VECTOR_PROGRAMS_PER_MULTIPROCESSOR = 16


def gpu_roofs(device: Device, multiprocessors: int, architecture: str) -> list[RoofSpec]:
    """Every ceiling of a GPU that the Triton kernels can measure, warm and with one host thread."""
    specs = [RoofSpec(problem, "triton") for problem in gpu_streams(device)]
    specs += [RoofSpec(problem, "triton_vector") for problem in vector_problems(multiprocessors)]
    specs += [RoofSpec(problem, "triton_matrix") for problem in matrix_problems(multiprocessors, architecture)]
    return specs


def gpu_streams(device: Device) -> list[Stream]:
    """read, copy and triad in the L2 and in main memory."""
    l2 = device.memory[0].capacity_bytes
    problems = []
    for operation, arrays in STREAM_ARRAYS.items():
        elements = int(L2_SHARE * l2 / (4 * sum(arrays))) // 4096 * 4096
        moved = 4.0 * sum(arrays) * elements
        problems.append(Stream(operation=operation, elements=elements, passes=max(1, round(L2_LAUNCH_BYTES / moved))))
    total = max(MEMORY_FACTOR * l2, LEAST_MEMORY_BYTES)
    for operation, arrays in STREAM_ARRAYS.items():
        elements = min(int(total / (4 * sum(arrays))), MOST_READ_ELEMENTS) // 4096 * 4096
        problems.append(Stream(operation=operation, elements=elements))
    return problems


def vector_problems(multiprocessors: int) -> list[Fma]:
    """float32 and float64 on the vector lanes."""
    chains, lanes = VECTOR_SHAPE
    return [
        Fma(
            precision=precision,
            unit="vector",
            groups=VECTOR_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors,
            chains=chains,
            lanes=lanes,
            depth=1,
            iterations=iterations,
        )
        for precision, iterations in VECTOR.items()
    ]


def matrix_problems(multiprocessors: int, architecture: str) -> list[Fma]:
    """Every precision that the matrix unit of ``architecture`` (sm_90, gfx942) takes."""
    from ridgeline.kernels.compiled import has_float8, has_tf32

    def has(precision: str) -> bool:
        if precision == "float8_e4m3fn":
            return has_float8(architecture)
        if precision == "bfloat16" and architecture.startswith("sm_"):
            return int(architecture[3:]) >= 80
        return precision != "tfloat32" or (has_tf32(architecture) and architecture not in ("sm_70", "sm_75"))

    return [
        Fma(
            precision=precision,
            unit="matrix",
            groups=PROGRAMS_PER_MULTIPROCESSOR * multiprocessors,
            chains=TILE,
            lanes=TILE,
            depth=depth,
            iterations=iterations,
        )
        for precision, (depth, iterations) in MATRIX.items()
        if has(precision)
    ]
