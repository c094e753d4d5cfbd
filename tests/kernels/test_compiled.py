"""The Triton kernels compiled ahead of time, and what their machine code holds. No GPU is needed.

``ridgeline compile`` compiles everything for every target. Here are as few as show that it is read right: every row of
INSTRUCTIONS for sm_90, whose instructions depend on the tile, and some for the others. What was compiled before comes
from the cache of :mod:`ridgeline.kernels.compile_all`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ridgeline.analytical.multiprocessor import multiprocessors
from ridgeline.kernels import compile_all
from ridgeline.kernels.compile_all import compile_modules, kernel_modules, offered_by
from ridgeline.kernels.compiled import TARGETS as KNOWN
from ridgeline.kernels.compiled import Compilation, CompiledKernel, CompileError, FailedKernel, compile_for
from ridgeline.kernels.issue_slots import amd_product, loop_usage, warp_product
from ridgeline.kernels.machine_code import CodeReadError, main_loop, parse_amd, parse_sass, read_amd
from ridgeline.results.compile import CompiledCode

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

# Matrix instructions by the start of the label, for each of TARGETS; "" where there must be none. On sm_90 and sm_100
# a tile of fewer than 64 rows stays on the instructions of sm_80.
INSTRUCTIONS = {
    "attention prefill": ("HMMA.16816.F32.BF16", "HGMMA.64", "UTCHMMA", "v_mfma_f32_32x32x8_bf16"),
    "attention decode": ("HMMA.16816.F32", "HMMA.16816.F32", "HMMA.16816.F32", "v_mfma_f32_16x16x16_f16"),
    "attention_quantiser": ("", "", "", ""),
    # Two products: each instruction is one of these, and all of these are there.
    "quantised_attention prefill int8/float16": (
        ("IMMA.16832.S8.S8", "HMMA.16816.F32"),
        ("IGMMA.64x64x32.S8.S8", "HGMMA.64x128x16.F32"),
        ("UTCIMMA", "UTCHMMA"),
        ("v_mfma_i32_32x32x16_i8", "v_mfma_f32_32x32x8_f16"),
    ),
    "quantised_attention prefill int8/float8_e4m3fn": (
        None,
        ("IGMMA.64x128x32.S8.S8", "QGMMA.64x128x32.F32.E4M3.E4M3"),
        ("UTCIMMA", "UTCQMMA"),
        None,
    ),
    "quantised_attention decode": (
        *(("IMMA.16832.S8.S8", "HMMA.16816.F32"),) * 3,
        ("v_mfma_i32_16x16x32_i8", "v_mfma_f32_16x16x16_f16"),
    ),
    "attention split": ("HMMA.16816.F32", "HMMA.16816.F32", "HMMA.16816.F32", "v_mfma_f32_16x16x16_"),
    "attention combine": ("", "", "", ""),
    "paged_attention": (
        "HMMA.16816.F32.BF16",
        "HMMA.16816.F32.BF16",
        "HMMA.16816.F32.BF16",
        "v_mfma_f32_16x16x16_bf16",
    ),
    "tree_attention": ("HMMA.16816.F32.BF16", "HGMMA.64", "UTCHMMA", "v_mfma_f32_"),
    # One query against rows at scattered addresses: there is no matrix to multiply by.
    "token_gather_attention": ("", "", "", ""),
    "label_channel_selector": ("", "", "", ""),
    "centroid_selector": ("", "", "", ""),
    "token_selector top-k": ("", "", "", ""),
    "block_sparse_attention strided bf16": ("HMMA.16816.F32.BF16", "HGMMA.64", "UTCHMMA", "v_mfma_f32_32x32x8_bf16"),
    "block_sparse_attention lines bf16": ("HMMA.16816.F32.BF16", "HGMMA.64", "UTCHMMA", "v_mfma_f32_32x32x8_bf16"),
    "block_sparse_attention lines fp32": ("", "", "", "v_mfma_f32_"),
    "fma matrix bfloat16": ("HMMA.16816.F32.BF16", "HGMMA.64x128x16.F32.BF16", "UTCHMMA", "v_mfma_f32_32x32x8_bf16"),
    "fma matrix float8": (None, "QGMMA.64x128x32.F32.E4M3.E4M3", "UTCQMMA", None),
    "fma matrix int8": ("IMMA.16832.S8.S8", "IGMMA.64x128x32.S8.S8", "UTCIMMA", "v_mfma_i32_32x32x16_i8"),
    "fma matrix tfloat32": ("HMMA.1688.F32.TF32", "HGMMA.64x128x8.F32.TF32", "UTCHMMA", "v_mfma_f32_32x32x4_xf32"),
    "fma vector": ("", "", "", ""),
    # float32 without TF32: NVIDIA has no such matrix instruction; AMD has.
    "gemm float32 64": ("", "", "", "v_mfma_f32_32x32x2_f32"),
    "gemm float32 tf32": ("HMMA.1688.F32.TF32", "HGMMA.64x128x8.F32.TF32", "UTCHMMA", "v_mfma_f32_32x32x4_xf32"),
    "gemm bfloat16 128x128": ("HMMA.16816.F32.BF16", "HGMMA.64x128x16.F32.BF16", "UTCHMMA", "v_mfma_f32_32x32x8_bf16"),
    "gemm bfloat16 128x256": (None, "HGMMA.64x256x16.F32.BF16", None, None),
    "gemm float16 16x": ("HMMA.16816.F32", "HMMA.16816.F32", "HMMA.16816.F32", "v_mfma_f32_16x16x16_f16"),
    "gemm flat float16": ("HMMA.16816.F32", "HMMA.16816.F32", "HMMA.16816.F32", "v_mfma_f32_16x16x16_f16"),
    "gemm flat bfloat16": ("HMMA.16816.F32.BF16", "HGMMA.64x64x16.F32.BF16", "UTCHMMA", "v_mfma_f32_32x32x8_bf16"),
    "gemm flat float32": ("", "", "", "v_mfma_f32_16x16x4_f32"),
    "gemm gemv": ("", "", "", ""),
    "gemm int8": ("IMMA.16832.S8.S8", "IGMMA.64x128x32.S8.S8", "UTCIMMA", "v_mfma_i32_32x32x16_i8"),
    "stream": ("", "", "", ""),
    "weight_only_gemm int4 g128 bfloat16": ("HMMA.16816.F32.BF16", "HGMMA.64x16x16.F32.BF16", "UTCHMMA", "v_mfma_f32_"),
    "weight_only_gemm int4 g128 float16": ("HMMA.16816.F32", "HGMMA.64x64x16.F32", "UTCHMMA", "v_mfma_f32_"),
    "weight_only_gemm int8": ("HMMA.16816.F32.BF16", "HGMMA.64x16x16.F32.BF16", "UTCHMMA", "v_mfma_f32_"),
}


EVERYWHERE = (
    "attention prefill softmax", "fma matrix bfloat16", "fma vector float32", "gemm float32", "gemm int8", "stream triad",
    "weight_only_gemm int4 g128 bfloat16",
)  # fmt: skip
"""Labels that are compiled for every target."""
ODD = str(Path(__file__).with_name("odd_kernels.py"))


def row_of(label: str) -> str | None:
    """The row of INSTRUCTIONS that a label belongs to."""
    return next((start for start in INSTRUCTIONS if label.startswith(start)), None)


@pytest.fixture(scope="module")
def kernels() -> list[CompiledKernel]:
    """For sm_90 the first compilation of each row of INSTRUCTIONS, for the other targets those of EVERYWHERE."""
    seen: set[tuple[str, str]] = set()

    def wanted(compilation: Compilation, target: str) -> bool:
        row = row_of(compilation.label)
        if row is None or (row, target) in seen:
            return False
        if target != "sm_90" and not compilation.label.startswith(EVERYWHERE):
            return False
        seen.add((row, target))
        return True

    results = compile_modules(kernel_modules(), TARGETS, wanted=wanted)
    failed = [result.error for result in results if isinstance(result, FailedKernel)]
    assert not failed
    return [result for result in results if isinstance(result, CompiledKernel)]


def test_every_triton_module_offers_compilations() -> None:
    for module in kernel_modules():
        offered = offered_by(module)
        assert offered, module
        names = [(c.label, c.num_warps, c.num_stages, t) for c in offered for t in (c.targets or KNOWN)]
        assert len(set(names)) == len(names), "stored code is told apart by label, warps and stages"


def test_nothing_spills(kernels: list[CompiledKernel]) -> None:
    assert len(kernels) >= 35
    assert not [(k.target, k.label, k.spills_bytes) for k in kernels if k.spills_bytes]
    for kernel in kernels:
        assert kernel.registers > 0
        assert kernel.code_bytes > 0


def test_matrix_instructions_are_those_of_the_target(kernels: list[CompiledKernel]) -> None:
    seen = set()
    for kernel in kernels:
        start = row_of(kernel.label)
        assert start is not None
        expected = INSTRUCTIONS[start][TARGETS.index(kernel.target)]
        assert expected is not None, f"{kernel.label} is not for {kernel.target}"
        found = kernel.matrix_instructions
        if expected:
            assert found, (kernel.target, kernel.label)
            assert all(opcode.startswith(expected) for opcode in found), (kernel.target, kernel.label, found)
            assert matrix_count(kernel)
        else:
            assert not found, (kernel.target, kernel.label, found)
        seen.add((start, kernel.target))
    assert {start for start, target in seen if target == "sm_90"} == set(INSTRUCTIONS)


def test_sums_of_float8_products_are_kept_in_float32(kernels: list[CompiledKernel]) -> None:
    """The matrix unit of sm_90 keeps 14 bits of them: a multiply-add each takes a tile's 128 x 128 sums out of it, 64 in each
    of 256 threads, beside the one that each of its scores takes."""
    (eight,) = (
        k
        for k in kernels
        if k.target == "sm_90" and k.label == "quantised_attention prefill int8/float8_e4m3fn d128 128x128"
    )
    assert eight.main_loop["FFMA"] >= 128


def matrix_count(kernel: CompiledKernel) -> int:
    """Matrix instructions of the main loop (whose opcodes have no modifiers)."""
    bases = {full.split(".")[0] for full in kernel.matrix_instructions}
    return sum(count for opcode, count in kernel.main_loop.items() if opcode in bases)


def test_exact_float32_product_holds_no_tf32(kernels: list[CompiledKernel]) -> None:
    exact = [k for k in kernels if k.label.startswith("gemm float32 64")]
    rounded = [k for k in kernels if k.label.startswith("gemm float32 tf32")]
    assert len(exact) == len(rounded) == len(TARGETS)
    for kernel in exact:
        assert not [i for i in kernel.matrix_instructions if "TF32" in i or "xf32" in i or i.startswith("UTC")]
    for kernel in rounded:
        assert [i for i in kernel.matrix_instructions if "TF32" in i or "xf32" in i or i == "UTCHMMA"]


def test_matrix_peak_loop_is_matrix_instructions(kernels: list[CompiledKernel]) -> None:
    # Of a 128 x 128 tile by 8 warps, 8 steps a turn. sm_90: a 64 x 128 half for each of two warp groups, two
    # instructions deep; sm_80: 32 of 16 x 8; sm_100: one thread issues for the whole tile.
    least = {"sm_80": 256, "sm_90": 16, "sm_100": 16, "gfx942": 64}
    peaks = [kernel for kernel in kernels if kernel.label.startswith("fma matrix")]
    assert len(peaks) == 7
    for kernel in peaks:
        loop = kernel.main_loop
        count = matrix_count(kernel)
        assert count >= least[kernel.target], (kernel.target, kernel.label, loop)
        assert not [i for i in loop if i in ("LDG", "STG", "LDL", "STL") or i.startswith(("global_", "buffer_"))]
        if kernel.target in ("sm_80", "gfx942"):
            assert count > 0.9 * sum(loop.values()), (kernel.target, kernel.label, loop)


def code_of(kernel: CompiledKernel) -> CompiledCode:
    """A kernel as it is stored."""
    values = {name: getattr(kernel, name) for name in CompiledCode.model_fields if hasattr(kernel, name)}
    when = {"record_id": "r", "run_id": "n", "started_at": "2026-11-27"}
    return CompiledCode(**values, **when, compiler="triton", status="ok")


def test_a_loop_of_matrix_instructions_alone_may_reach_the_roof(kernels: list[CompiledKernel]) -> None:
    # 2 x 128 x 128 x K operations a step, 8 steps a turn, whatever instructions a target makes of it.
    depths = {"bfloat16": 32, "float8": 64, "int8": 64, "tfloat32": 16}
    for kernel in (k for k in kernels if k.label.startswith("fma matrix")):
        depth = next(depth for name, depth in depths.items() if name in kernel.label)
        assert kernel.loop_reason == ""
        turns = sum(kernel.loop_matrix_flop.values()) / (8 * 2 * 128 * 128 * depth)
        assert turns == (2 if kernel.target == "gfx942" else 1), "LLVM unrolls the loop once more for AMD"
        bound, reason = code_of(kernel).bound
        assert bound is not None, reason
        assert bound.overlapped_share is not None
        assert bound.overlapped_share > 0.99, (kernel.target, kernel.label, bound)


def test_every_matrix_kernel_has_both_bounds(kernels: list[CompiledKernel]) -> None:
    for kernel in kernels:
        bound, reason = code_of(kernel).bound
        if bound is None:  # what adds up parts does it in one go
            assert (reason, kernel.matrix_instructions) == ("there is no loop", ())
            continue
        if kernel.matrix_instructions:
            assert bound.overlapped_share is not None
            assert bound.serial_share is not None
            assert 0.0 < bound.serial_share <= bound.overlapped_share <= 1.0
        else:
            assert bound.overlapped_share is None


def test_loop_of_prefill_multiplies_as_its_tile_says(kernels: list[CompiledKernel]) -> None:
    for kernel in (k for k in kernels if k.label.startswith("attention prefill softmax")):
        m, n = map(int, kernel.label.split()[-1].split("x"))
        # On gfx942 two warps share each 32 rows of the scores, and both compute them.
        twice = 2.0 * m * n * 128 if kernel.target == "gfx942" else 0.0
        assert kernel.loop_matrix_flop == {"bfloat16": 4.0 * m * n * 128 + twice}, (kernel.target, kernel.label)
        assert kernel.loop_results["special"] >= m * n  # an exponential for each score, and the rescaling


def test_vector_peak_loop_is_multiply_adds(kernels: list[CompiledKernel]) -> None:
    for kernel in (kernel for kernel in kernels if kernel.label.startswith("fma vector")):
        loop = kernel.main_loop
        packed = loop.get("FFMA2", 0)
        count = packed + sum(number for opcode, number in loop.items() if opcode in ("FFMA", "DFMA"))
        count += sum(number for opcode, number in loop.items() if opcode.startswith(("v_fma", "v_pk_fma")))
        # 16 steps of 8 chains per thread; FFMA2 does two. A wavefront of AMD is 64 wide: 4 warps hold each chain twice.
        assert count + packed == 128, (kernel.target, loop)
        assert count > 0.9 * sum(loop.values())


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_inserted_instructions_lower_both_bounds(target: str) -> None:
    results = compile_modules([ODD], [target], wanted=lambda c, _: c.label.startswith("product"))
    base, exponentials, multiply_adds = (code_of(r).bound[0] for r in results if isinstance(r, CompiledKernel))
    assert base is not None
    # 64 x 64 products: 8 exponentials more of each at 16 a cycle, or 32 multiply-adds at 128 (on gfx942 64 pairs).
    for more, pipe, extra in ((exponentials, "special", 2048.0), (multiply_adds, "fma", 1024.0)):
        assert more is not None
        assert more.cycles["matrix"] == base.cycles["matrix"]
        pipe = pipe if target.startswith("sm_") else "valu"
        assert more.cycles[pipe] - base.cycles[pipe] == pytest.approx(extra, rel=0.1)
        assert (more.overlapped_share or 1.0) < (base.overlapped_share or 0.0)
        assert (more.serial_share or 1.0) < (base.serial_share or 0.0)


def test_the_cache_answers_for_what_was_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_CACHE", str(tmp_path))
    (first,) = compile_modules([ODD], ["sm_80"], processes=1, wanted=lambda c, _: c.label == "plain")
    assert isinstance(first, CompiledKernel)
    assert first.matrix_instructions == ()
    assert first.main_loop["FADD"] >= 2
    assert first.loop_matrix_flop == {}
    monkeypatch.setattr(compile_all, "_pool", lambda processes: pytest.fail("a process was started"))
    assert compile_modules([ODD], ["sm_80"], wanted=lambda c, _: c.label == "plain") == [first]
    for file in (tmp_path / "compiled").iterdir():
        file.write_text("{")  # cut off: it counts as absent
    with pytest.raises(pytest.fail.Exception, match="a process was started"):
        compile_modules([ODD], ["sm_80"], wanted=lambda c, _: c.label == "plain")


def test_an_error_is_one_line() -> None:
    narrow = offered_by(ODD)[1]
    with pytest.raises(CompileError) as raised:
        compile_for(narrow, KNOWN["sm_80"])
    assert str(raised.value).startswith("narrow for sm_80: ")
    assert "\n" not in str(raised.value)
    assert "Input shapes should have" in str(raised.value)  # Triton's own reason: K is too small


def test_an_interpreting_process_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton import knobs

    monkeypatch.setattr(knobs.runtime, "interpret", True)
    with pytest.raises(CompileError, match="interprets Triton; unset TRITON_INTERPRET"):
        compile_for(offered_by(ODD)[0], KNOWN["sm_90"])


def test_prepare_compiles_for_cuda_without_a_gpu() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    runner = Path(__file__).with_name("prepare_for_cuda.py")
    done = subprocess.run(
        [sys.executable, str(runner)], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    prepared: set[Any] = {(case["operator"], case["implementation"]) for case in json.loads(done.stdout)}
    assert prepared >= {
        ("attention", "triton"),
        ("attention", "triton_bulk"),
        ("attention_quantiser", "triton"),
        ("quantised_attention", "triton"),
        ("attention", "triton_split_kv"),
        ("attention", "triton_unified_max"),
        ("centroid_selector", "triton"),
        ("fma", "triton_matrix"),
        ("fma", "triton_vector"),
        ("gemm", "triton"),
        ("gemm", "triton_flat"),
        ("gemm", "triton_gemv"),
        ("gemm", "triton_tf32"),
        ("label_channel_selector", "triton"),
        ("paged_attention", "triton"),
        ("stream", "triton"),
        ("token_gather_attention", "triton"),
        ("tree_attention", "triton"),
        ("weight_only_gemm", "triton"),
    }


def test_main_loop_is_the_innermost_with_the_work() -> None:
    listing = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;       /* 0x0 */
        /*0010*/              @!P0 LDG.E R2, [R4] ;             /* 0x0 */
        /*0020*/                   HMMA.16816.F32 R8, R2, R4, R8 ;
        /*0030*/                   SYNCS.PHASECHK P1, [R5] ;
        /*0040*/               @P1 BRA 0x30 ;
        /*0050*/             @!UP2 BRA 0x20 ;
        /*0060*/               @P3 BRA 0x10 ;
        /*0070*/                   EXIT ;
        /*0080*/                   BRA 0x80;
    """
    loop = main_loop(parse_sass(listing))
    assert [i.opcode for i in loop] == ["HMMA.16816.F32", "BRA"], "waiting is no work"
    amd = ".LBB0_1:\n\tv_fma_f32 v0, v1, v2, v0\n\ts_cbranch_scc1 .LBB0_1 ; again\n\ts_endpgm\n"
    assert [i.opcode for i in main_loop(parse_amd(amd))] == ["v_fma_f32", "s_cbranch_scc1"]
    assert main_loop(parse_amd("\ts_endpgm\n")) == []
    with pytest.raises(CodeReadError, match="no metadata"):
        read_amd(amd)


def test_a_block_that_was_moved_away_is_no_loop() -> None:
    # The product behind the condition stands after the end and jumps back: the loop is the one of the multiply-adds.
    listing = """
        /*0000*/              @!P0 BRA 0x50 ;
        /*0010*/                   FFMA R1, R1, R1, R1 ;
        /*0020*/              @!P1 BRA 0x70 ;
        /*0030*/               @P2 BRA 0x10 ;
        /*0040*/                   EXIT ;
        /*0050*/                   HMMA.16816.F32 R8, R2, R4, R8 ;
        /*0060*/                   BRA 0x10 ;
        /*0070*/                   SYNCS.PHASECHK P1, [R5] ;
        /*0080*/              @!P1 BRA 0x70 ;
        /*0090*/                   BRA 0x30 ;
    """
    assert [hex(i.address) for i in main_loop(parse_sass(listing))] == ["0x10", "0x20", "0x30"]


def test_one_warp_alone_executes_the_branch_with_the_tensor_memory() -> None:
    listing = """
        /*0000*/                   FFMA R1, R1, R1, R1 ;
        /*0010*/              @!P1 BRA 0x50 ;
        /*0020*/                   UMOV UR4, 0x1 ;
        /*0030*/                   UTCHMMA gdesc[UR6], gdesc[UR8], tmem[UR16], tmem[UR46], idesc[UR47], !UPT ;
        /*0040*/                   UTCBAR [UR63], URZ ;
        /*0050*/                   MUFU.EX2 R1, R1 ;
        /*0060*/               @P2 BRA 0x0 ;
        /*0070*/                   EXIT ;
    """
    ptx = """
    $L__BB0_1:
        mov.b32 %r9, 135267472;
        @%p1 tcgen05.mma.cta_group::1.kind::f16 [ %r1 + 0 ], %rd1, %rd2, %r9, %p2;
        @%p3 bra $L__BB0_1;
    """
    ptx = "\n".join(line.removeprefix("    ") for line in ptx.splitlines())
    usage = loop_usage(main_loop(parse_sass(listing)), "sm_100", 4, ptx)
    assert usage.reason == ""
    assert usage.matrix_flop == {"bfloat16": 2.0 * 128 * 64 * 16}
    assert usage.results["instruction"] == 4 * 128 + 3 * 32
    assert usage.results["operand_word"] == (128 + 64) * 16 / 2
    assert "no loop with the 1 tcgen05.mma" in loop_usage(main_loop(parse_sass(listing)), "sm_100", 4, "").reason


@pytest.mark.parametrize(
    ("opcode", "flop", "precision"),
    [
        ("HMMA.16816.F32.BF16", 4096, "bfloat16"),
        ("HMMA.1688.F32.TF32", 2048, "tfloat32"),
        ("IMMA.16832.S8.S8", 8192, "int8"),
        ("QMMA.16832.F32.E4M3.E4M3", 8192, "float8_e4m3fn"),
        ("HGMMA.64x128x16.F32", 262144, "float16"),
        ("QGMMA.64x256x32.F32.E5M2.E5M2", 1048576, "float8_e5m2"),
    ],
)
def test_products_of_nvidia(opcode: str, flop: float, precision: str) -> None:
    product = warp_product(opcode, "R24, gdesc[UR8], R24")
    assert product is not None
    assert (product.flop, product.precision) == (flop, precision)
    assert warp_product("HMMA.unheard") is None


@pytest.mark.parametrize(
    ("opcode", "cycles"),
    [
        # AMD matrix instruction calculator, CDNA3: execution cycles. (Its 16-bit forms of several blocks take twice as many.)
        ("v_mfma_f32_16x16x8_xf32", 16),
        ("v_mfma_f32_32x32x1_2b_f32", 64),
        ("v_mfma_f32_16x16x4_f32", 32),
        ("v_mfma_f32_32x32x8_f16", 32),
        ("v_mfma_f32_16x16x16_bf16", 16),
        ("v_mfma_f32_32x32x8_bf16", 32),
        ("v_mfma_i32_32x32x16_i8", 32),
        ("v_mfma_f64_16x16x4_f64", 32),
        ("v_mfma_f32_32x32x16_fp8_fp8", 32),
    ],
)
def test_products_of_amd_take_the_cycles_of_its_calculator(opcode: str, cycles: int) -> None:
    product = amd_product(opcode, "gfx942")
    assert product is not None
    unit = multiprocessors()["gfx942"]
    per_cycle = unit.matrix_flop_per_cycle(product.precision)
    assert per_cycle is not None
    assert product.flop / (per_cycle / unit.partitions) == cycles


def test_formats_of_a_mixed_product_are_among_its_operands() -> None:
    mixed = "v_mfma_f32_32x32x64_f8f6f4"
    products = [
        amd_product(mixed, "gfx950", operands)
        for operands in (
            "a[0:15], v[0:7], v[8:15], a[0:15]",
            "a[0:15], v[0:3], v[4:7], a[0:15] cbsz:4 blgp:4",
            "v0 cbsz:2",
        )
    ]
    assert [p and p.precision for p in products] == ["float8_e4m3fn", "float4_e2m1fn", None]
