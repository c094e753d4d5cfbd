"""The Triton kernels compiled ahead of time, and what their machine code holds. No GPU is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ridgeline.kernels.machine_code import CodeReadError, main_loop, parse_amd, parse_sass, read_amd

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
        ("IGMMA.64x64x32.S8.S8", "QGMMA.64x128x32.F32.E4M3.E4M3"),
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
    "gemm flat bfloat16": ("HMMA.16816.F32.BF16", "HGMMA.64x128x16.F32.BF16", "UTCHMMA", "v_mfma_f32_32x32x8_bf16"),
    "gemm flat float32": ("", "", "", "v_mfma_f32_16x16x4_f32"),
    "gemm gemv": ("", "", "", ""),
    "gemm int8": ("IMMA.16832.S8.S8", "IGMMA.64x128x32.S8.S8", "UTCIMMA", "v_mfma_i32_32x32x16_i8"),
    "stream": ("", "", "", ""),
    "weight_only_gemm int4 g128 bfloat16": ("HMMA.16816.F32.BF16", "HGMMA.64x16x16.F32.BF16", "UTCHMMA", "v_mfma_f32_"),
    "weight_only_gemm int4 g128 float16": ("HMMA.16816.F32", "HGMMA.64x64x16.F32", "UTCHMMA", "v_mfma_f32_"),
    "weight_only_gemm int8": ("HMMA.16816.F32.BF16", "HGMMA.64x16x16.F32.BF16", "UTCHMMA", "v_mfma_f32_"),
}


def compile_all(*arguments: str, interpret: bool = False) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and JSON of the command, in a process that does (not) interpret Triton."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline.kernels.compiled", *arguments, "--json"],
        env={**environment, "TRITON_INTERPRET": "1"} if interpret else environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def kernels() -> list[dict[str, Any]]:
    code, kernels = compile_all("--targets", ",".join(TARGETS))
    assert code == 0, [kernel["error"] for kernel in kernels if "error" in kernel]
    return kernels


def test_every_target_has_every_operator(kernels: list[dict[str, Any]]) -> None:
    for target in TARGETS:
        operators = {kernel["label"].split()[0] for kernel in kernels if kernel["target"] == target}
        assert operators == {
            "attention",
            "attention_quantiser",
            "fma",
            "gemm",
            "paged_attention",
            "quantised_attention",
            "stream",
            "tree_attention",
            "weight_only_gemm",
        }
    for kernel in kernels:
        assert kernel["registers"] > 0
        assert kernel["code_bytes"] > 0


def test_nothing_spills(kernels: list[dict[str, Any]]) -> None:
    assert not [(k["target"], k["label"], k["spills_bytes"]) for k in kernels if k["spills_bytes"]]


def test_matrix_instructions_are_those_of_the_target(kernels: list[dict[str, Any]]) -> None:
    seen = set()
    for kernel in kernels:
        [(start, by_target)] = [item for item in INSTRUCTIONS.items() if kernel["label"].startswith(item[0])]
        expected = by_target[TARGETS.index(kernel["target"])]
        assert expected is not None, f"{kernel['label']} is not for {kernel['target']}"
        found = kernel["matrix_instructions"]
        if expected:
            assert found, (kernel["target"], kernel["label"])
            assert all(opcode.startswith(expected) for opcode in found), (kernel["target"], kernel["label"], found)
            assert any(is_of(opcode, kernel) for opcode in kernel["main_loop"])
            every = (expected,) if isinstance(expected, str) else expected
            assert all(any(opcode.startswith(wanted) for opcode in found) for wanted in every), (kernel["label"], found)
        else:
            assert not found, (kernel["target"], kernel["label"], found)
        seen.add((start, kernel["target"]))
    wanted = {
        (s, t) for s, row in INSTRUCTIONS.items() for t, name in zip(TARGETS, row, strict=True) if name is not None
    }
    assert seen == wanted


def is_of(opcode: str, kernel: dict[str, Any]) -> bool:
    """Whether an opcode of the loop (without modifiers) is one of the kernel's matrix instructions."""
    return any(full.split(".")[0] == opcode for full in kernel["matrix_instructions"])


def test_exact_float32_product_holds_no_tf32(kernels: list[dict[str, Any]]) -> None:
    exact = [k for k in kernels if k["label"].startswith("gemm float32 64")]
    rounded = [k for k in kernels if k["label"].startswith("gemm float32 tf32")]
    assert len(exact) == len(rounded) == len(TARGETS)
    for kernel in exact:
        assert not [i for i in kernel["matrix_instructions"] if "TF32" in i or "xf32" in i or i.startswith("UTC")]
    for kernel in rounded:
        assert [i for i in kernel["matrix_instructions"] if "TF32" in i or "xf32" in i or i == "UTCHMMA"]


def test_matrix_peak_loop_is_matrix_instructions(kernels: list[dict[str, Any]]) -> None:
    # Of a 128 x 128 tile by 8 warps, 8 steps a turn. sm_90: a 64 x 128 half for each of two warp groups, two
    # instructions deep; sm_80: 32 of 16 x 8; sm_100: one thread issues for the whole tile.
    least = {"sm_80": 256, "sm_90": 16, "sm_100": 16, "gfx942": 64}
    peaks = [kernel for kernel in kernels if kernel["label"].startswith("fma matrix")]
    assert len(peaks) == 14
    for kernel in peaks:
        loop = kernel["main_loop"]
        count = sum(number for opcode, number in loop.items() if is_of(opcode, kernel))
        assert count >= least[kernel["target"]], (kernel["target"], kernel["label"], loop)
        assert not [i for i in loop if i in ("LDG", "STG", "LDL", "STL") or i.startswith(("global_", "buffer_"))]
        if kernel["target"] in ("sm_80", "gfx942"):
            assert count > 0.9 * sum(loop.values()), (kernel["target"], kernel["label"], loop)


def test_vector_peak_loop_is_multiply_adds(kernels: list[dict[str, Any]]) -> None:
    for kernel in (kernel for kernel in kernels if kernel["label"].startswith("fma vector")):
        loop = kernel["main_loop"]
        packed = loop.get("FFMA2", 0)
        count = packed + sum(number for opcode, number in loop.items() if opcode in ("FFMA", "DFMA"))
        count += sum(number for opcode, number in loop.items() if opcode.startswith(("v_fma", "v_pk_fma")))
        # 16 steps of 8 chains per thread; FFMA2 does two. A wavefront of AMD is 64 wide: 4 warps hold each chain twice.
        assert count + packed == 128, (kernel["target"], loop)
        assert count > 0.9 * sum(loop.values())


def test_control_has_no_matrix_instruction_and_an_error_is_one_line() -> None:
    code, kernels = compile_all("odd_kernels", "--targets", "sm_80,sm_90")
    assert code == 1
    plain, failing = kernels[:2], kernels[2:]
    for kernel in plain:
        assert kernel["matrix_instructions"] == []
        assert kernel["main_loop"]["FADD"] >= 2
    for kernel, target in zip(failing, ("sm_80", "sm_90"), strict=True):
        assert kernel["error"].startswith(f"narrow for {target}: ")
        assert "\n" not in kernel["error"]
        assert "Input shapes should have" in kernel["error"]  # Triton's own reason: K is too small


def test_an_interpreting_process_refuses() -> None:
    code, kernels = compile_all("odd_kernels", "--targets", "sm_90", interpret=True)
    assert code == 1
    assert all("interprets Triton; unset TRITON_INTERPRET" in kernel["error"] for kernel in kernels)


def test_prepare_compiles_for_cuda_without_a_gpu() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    runner = Path(__file__).with_name("prepare_for_cuda.py")
    done = subprocess.run(
        [sys.executable, str(runner)], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    prepared = {(case["operator"], case["implementation"]) for case in json.loads(done.stdout)}
    assert prepared == {
        ("attention", "triton"),
        ("attention_quantiser", "triton"),
        ("quantised_attention", "triton"),
        ("attention", "triton_split_kv"),
        ("attention", "triton_unified_max"),
        ("fma", "triton_matrix"),
        ("fma", "triton_vector"),
        ("gemm", "triton"),
        ("gemm", "triton_flat"),
        ("gemm", "triton_gemv"),
        ("gemm", "triton_tf32"),
        ("paged_attention", "triton"),
        ("stream", "triton"),
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
    assert [i.opcode for i in loop] == ["HMMA.16816.F32", "SYNCS.PHASECHK", "BRA", "BRA"]
    amd = ".LBB0_1:\n\tv_fma_f32 v0, v1, v2, v0\n\ts_cbranch_scc1 .LBB0_1 ; again\n\ts_endpgm\n"
    assert [i.opcode for i in main_loop(parse_amd(amd))] == ["v_fma_f32", "s_cbranch_scc1"]
    assert main_loop(parse_amd("\ts_endpgm\n")) == []
    with pytest.raises(CodeReadError, match="no metadata"):
        read_amd(amd)
