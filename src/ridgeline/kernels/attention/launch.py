"""The host's side of the Triton attention kernels: constants, grids, scratch, launches, and what is compiled ahead."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton

from ridgeline.kernels.attention.flash import combine_kernel, flash_kernel
from ridgeline.kernels.attention.transforms import TRANSFORMS, ancestor_or_context, in_window, up_to_last
from ridgeline.kernels.compiled import Compilation

LOG2_E = math.log2(math.e)
"""Scores are kept in units of log2, because the hardware's exponential is 2^x."""

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float8_e4m3fn": "fp8e4nv", "int32": "i32"}
"""Triton's name of a torch precision."""

PROGRAMS = 132
"""Programs that a split aims at: one for each multiprocessor of an H100 or H200. On an H200, decode of 32 heads over 8 of 128 in
float16, cold, in us with one and with two: B1 S8k 20.7, 23.8; B2 32.2, 33.9; B4 48.9, 50.8; B8 78.2, 81.5; B16 133, 139;
B1 S32k 48.0, 50.5; B4 S32k 138, 140; B1 S128k 138, 141."""
LEAST_PART = 256
"""Keys that a part has at least by default, so that its result is small beside what it reads."""

FLOAT16_SHIFT = 6.0
"""Weights over a unified maximum are 2^6 smaller in float16: a row of 10^6 keys then sums to 2^15, in its range."""


@dataclass(frozen=True)
class Launch:
    """Reads ``q``, ``k``, ``v``, and ``lengths`` and ``block_table`` where there are pages; fills the output."""

    function: Callable[[Mapping[str, torch.Tensor], torch.Tensor], None]
    flags: torch.Tensor | None
    """int8[rows of the output]: with a unified maximum, which rows the newest call had to compute again."""

    def __call__(self, inputs: Mapping[str, torch.Tensor], out: torch.Tensor) -> None:
        self.function(inputs, out)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one launch is for, and how its keys lie."""

    batch: int
    q_heads: int
    kv_heads: int
    q_length: int
    kv_length: int
    """Keys of a sequence; the most where lengths are ragged."""
    head_dim: int
    precision: str
    kv_precision: str = ""
    """Default ``precision``."""
    causal: bool = False
    window: int = 0
    """Keys that a query sees at most; 0 for no such limit."""
    page: int = 0
    """Tokens in a page; 0 where the keys of a head lie in one piece, all of ``kv_length``."""
    tree: bool = False
    """Whether the last ``q_length`` keys are seen by their descendants alone."""

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.q_heads // self.kv_heads

    @property
    def rows(self) -> int:
        """Rows of the output."""
        return self.batch * self.q_heads * self.q_length

    def parts(self, fold: int, block_m: int) -> int:
        """Parts that fill a GPU with programs and hold ``LEAST_PART`` keys each, unless there are fewer keys."""
        programs = triton.cdiv(self.q_length * fold, block_m) * (self.batch * self.q_heads // fold)
        return max(1, min(PROGRAMS // programs, self.kv_length // LEAST_PART))


def meta(shape: Shape, transform: str, config: Mapping[str, Any], fold: int, splits: int, flags: str) -> dict[str, Any]:
    """Compile-time parameters of ``flash_kernel``."""
    plug_in = TRANSFORMS[transform]
    return {
        "D": shape.head_dim,
        "GROUP": shape.group,
        "FOLD": fold,
        "KV_HEADS": shape.kv_heads if shape.page else 1,  # one piece: no need to know
        "CAUSAL": shape.causal and not shape.tree,
        "WINDOW": shape.window,
        "PAGE": shape.page,
        "BULK": bool(config.get("bulk", False)),
        "SPLITS": splits,
        "FLAGS": flags,
        "TRANSFORM": plug_in.update,
        "WHOLE": plug_in.update if shape.precision == "float32" else plug_in.whole or plug_in.update,
        "FINISH": plug_in.finish,
        "PART": plug_in.part if splits > 1 else None,
        "SEES": ancestor_or_context if shape.tree else in_window if shape.window else up_to_last,
        "BLOCK_M": config["block_m"],
        "BLOCK_N": config["block_n"],
        "BLOCK_D": max(16, triton.next_power_of_2(shape.head_dim)),
        "INPUT_PRECISION": config.get("input_precision", "ieee"),
    }


def combine_meta(head_dim: int, splits: int, transform: str) -> dict[str, Any]:
    """Compile-time parameters of ``combine_kernel``."""
    return {
        "D": head_dim,
        "SPLITS": splits,
        "UNIFIED": transform == "unified_max",
        "BLOCK_S": triton.next_power_of_2(splits),
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
    }


def sum_range(precision: str, keys: int) -> tuple[float, float]:
    """Sums of weights over a unified maximum between which a row is right to the precision's rounding.

    The sum bounds every weight from above. float16 rounds weights below 2^-14 to multiples of 2^-24; if all of a row
    were so, their error would be ``keys`` 2^-25, which has to stay below 2^-11 of the sum. In the others' range of
    exponents the limits leave 2^60 for the values and for weights that matter.
    """
    return (keys * 2.0**-14, 2.0**15) if precision == "float16" else (2.0**-60, 2.0**60)


def launcher(
    shape: Shape,
    transform: str,
    config: Mapping[str, Any],
    device: str,
    *,
    fold: int,
    splits: int = 1,
    score_bias: float = 0.0,
    ancestors: torch.Tensor | None = None,
) -> Launch:
    """Compile for ``device``, allocate scratch, and return what launches.

    ``sigmoid`` with ``splits`` adds its parts atomically into the output (float32) or into a float32 copy of it, in an
    order that is not fixed; there is no combine kernel. ``unified_max`` computes rows that left its range again.

    Args:
        transform: of ``TRANSFORMS``.
        config: ``block_m``, ``block_n``, ``num_warps``, ``num_stages``; ``phi``, the unified maximum, in units of the
            scores (default 0); ``input_precision`` of float32 products; ``bulk`` to copy K and V by descriptor.
        fold: query heads in one tile, 1 or the group.
        splits: parts that the keys are split in.
        score_bias: added to the scaled scores, for a sigmoid.
        ancestors: int32 words of :func:`ancestor_bits`, for a tree.
    """
    unified = transform == "unified_max"
    added = splits > 1 and TRANSFORMS[transform].part is None
    in_place = added and shape.precision == "float32"
    t, s, d, rows = shape.q_length, shape.kv_length, shape.head_dim, shape.rows

    def scratch(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    part = sums = flags = summed = None
    if added and not in_place:
        summed = scratch((rows, d), torch.float32)
    elif splits > 1 and not added:
        part, sums = scratch((rows, splits, d), torch.float32), scratch((rows, splits), torch.float32)
    if unified:
        flags = scratch((rows,), torch.int8)
    bias = LOG2_E * score_bias
    if unified:
        bias = -LOG2_E * config.get("phi", 0.0) - (FLOAT16_SHIFT if shape.precision == "float16" else 0.0)
    scale = LOG2_E / math.sqrt(d)
    least, most = sum_range(shape.precision, s)
    launch_options = {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}
    programs = triton.cdiv(t * fold, config["block_m"]) * (shape.batch * shape.q_heads // fold)
    writes = "write" if unified and splits == 1 else ""
    options = {**meta(shape, transform, config, fold, splits, writes), **launch_options}
    again = {**meta(shape, "softmax", config, fold, 1, "read"), **launch_options}
    combining = {**combine_meta(d, splits, transform), "num_warps": 4}

    # `run(kernel, grid)` is what takes the arguments: it launches, or compiles alone.
    def flash(q: Any, k: Any, v: Any, out: Any, lengths: Any, table: Any, run: Callable[..., Any]) -> None:
        width = table.shape[1] if table is not None else 0
        given, target = (t, s, width, scale, bias, least, most), (out if summed is None else summed)
        final = part is None
        run(flash_kernel, (programs, splits))(
            q, k, v, target if final else None, part, sums, flags if final else None, lengths, table, ancestors,
            *given, **options,
        )  # fmt: skip
        if not final:
            run(combine_kernel, (rows,))(part, sums, out, flags, least, most, **combining)
        if unified:
            run(flash_kernel, (programs, 1))(
                q, k, v, out, None, None, flags, lengths, table, ancestors, *given, **again
            )  # fmt: skip

    if device == "cuda":  # compile here, so that the time is prepare's
        kv_dtype = getattr(torch, shape.kv_precision or shape.precision)
        dtype = getattr(torch, shape.precision)
        lengths = scratch((1,), torch.int32) if shape.page else None
        table = scratch((1, triton.cdiv(s, shape.page)), torch.int32) if shape.page else None
        flash(dtype, kv_dtype, kv_dtype, dtype, lengths, table, _warmer)

    bulk = options["BULK"]
    if bulk and device == "cuda":  # descriptors are made on the device, in memory that Triton asks for
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device=device))

    def launch(inputs: Mapping[str, torch.Tensor], out: torch.Tensor) -> None:
        if bulk and (inputs["k"].data_ptr() | inputs["v"].data_ptr()) % 16:
            raise ValueError(
                "k and v: a descriptor wants them at a multiple of 16 bytes; a view of a tensor may not be"
            )
        if in_place:
            out.zero_()
        elif summed is not None:
            summed.zero_()
        lengths, table = inputs.get("lengths"), inputs.get("block_table")
        flash(inputs["q"], inputs["k"], inputs["v"], out, lengths, table, lambda kernel, grid: kernel[grid])
        if summed is not None:
            out.copy_(summed.view(out.shape))

    return Launch(launch, flags)


def _warmer(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    def warm(*arguments: Any, **options: Any) -> None:
        types = [a.dtype if isinstance(a, torch.Tensor) else a for a in arguments]
        kernel.warmup(*types, grid=grid, **options)

    return warm


def ancestor_bits(ancestors: torch.Tensor) -> torch.Tensor:
    """int32[n, ceil(n / 32)] of bool[n, n]: bit j % 32 of word j // 32 says whether a row sees node j."""
    n = len(ancestors)
    padded = ancestors.new_zeros(n, triton.cdiv(n, 32) * 32)
    padded[:, :n] = ancestors
    bits = padded.view(n, -1, 32).long() << torch.arange(32, device=ancestors.device)
    words = bits.sum(dim=-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


POINTERS = ("q_ptr", "k_ptr", "v_ptr", "out_ptr")


def ahead_of_time(
    label: str,
    shape: Shape,
    transform: str,
    config: Mapping[str, Any],
    *,
    fold: int,
    splits: int = 1,
    flags: str = "",
    targets: tuple[str, ...] = (),
) -> Compilation:
    """``flash_kernel`` ahead of time for such a shape; sizes are not constants, but S is a multiple of 16."""
    kv = DTYPES[shape.kv_precision or shape.precision]
    constants = meta(shape, transform, config, fold, splits, flags)
    parts = splits > 1 and constants["PART"] is not None
    added = splits > 1 and not parts
    pointers = {
        "q_ptr": DTYPES[shape.precision],
        "k_ptr": kv,
        "v_ptr": kv,
        "out_ptr": None if parts else "fp32" if added else DTYPES[shape.precision],
        "part_ptr": "fp32" if parts else None,
        "sum_ptr": "fp32" if parts else None,
        "flag_ptr": "i8" if flags else None,
        "lengths_ptr": "i32" if shape.page else None,
        "table_ptr": "i32" if shape.page else None,
        "tree_ptr": "i32" if shape.tree else None,
    }
    there = [name for name, kind in pointers.items() if kind is not None]
    floats = dict.fromkeys(("scale", "bias", "least", "most"), "fp32")
    # Decode has a query length of 1, which the launcher makes a constant; a tree's is any number.
    sizes = ["S"] if shape.page == 0 and not shape.tree else []
    sizes += ["T"] if fold == 1 else []
    return Compilation(
        kernel=flash_kernel,
        label=f"{label} {DTYPES[shape.precision]} d{shape.head_dim} {config['block_m']}x{config['block_n']}",
        signature={
            **{name: f"*{pointers[name]}" for name in there},
            **dict.fromkeys(("T", "S", "table_width"), "i32"),
            **floats,
        },
        constexprs={**constants, **dict.fromkeys((name for name in pointers if name not in there), None)},
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        aligned=(*there, *sizes),
        targets=targets,
    )


def combine_ahead_of_time(label: str, precision: str, head_dim: int, splits: int, transform: str) -> Compilation:
    """``combine_kernel`` ahead of time."""
    pointers = {"part_ptr": "fp32", "sum_ptr": "fp32", "out_ptr": DTYPES[precision]}
    flagged = transform == "unified_max"
    if flagged:
        pointers["flag_ptr"] = "i8"
    constants = combine_meta(head_dim, splits, transform)
    return Compilation(
        kernel=combine_kernel,
        label=f"{label} {DTYPES[precision]} d{head_dim} {splits} parts",
        signature={
            **{name: f"*{kind}" for name, kind in pointers.items()},
            "least": "fp32",
            "most": "fp32",
        },
        constexprs=constants if flagged else {**constants, "flag_ptr": None},
        aligned=tuple(pointers),
    )
