"""LLM-Viewer's formulas: the figures its own code gave, its defects, and a checkout of it where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.architectures.step import step_time
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import BFLOAT16, ONE_DEVICE
from ridgeline.analytical.llm_viewer import (
    DEFECTS,
    HARDWARE,
    NAMES,
    STAGES,
    Dimensions,
    ParityError,
    Row,
    Stage,
    analyse,
    ceilings_of,
    dimensions,
    hardware,
    total_s,
)
from ridgeline.analytical.phases import Phase

LLAMA = dimensions(load_architecture("llama-3-8b"))


def stage(name: Stage, device: str, batch: int = 1, flash: bool = False) -> tuple[Row, ...]:
    """Llama-3-8B at 2,048 tokens and 16 bits."""
    return analyse(LLAMA, hardware(device), name, sequence=2048, batch=batch, flash=flash)


# Milliseconds that its code at 472f71f printed for Llama-3-8B, 2,048 tokens: peers-analytical.md 2.1.
@pytest.mark.parametrize(
    ("device", "flash", "expected"),
    [
        ("nvidia-h100-sxm5-80gb", False, {"prefill": 42.65, "prefill 32": 1354, "decode": 4.98, "decode 32": 7.95}),
        ("nvidia-h100-sxm5-80gb", True, {"prefill": 42.51, "prefill 32": 1350, "decode": 5.24, "decode 32": 16.25}),
        ("nvidia-a100-sxm4-80gb", False, {"prefill": 112.3, "decode": 7.51, "decode 32": 11.97}),
        ("nvidia-a100-sxm4-80gb", True, {"prefill": 112.2, "decode": 7.90, "decode 32": 24.5}),
    ],
)
def test_times_are_those_of_its_own_code(device: str, flash: bool, expected: dict[str, float]) -> None:
    for case, milliseconds in expected.items():
        name, _, batch = case.partition(" ")
        found = total_s(stage("prefill" if name == "prefill" else "decode", device, int(batch or 1), flash)) * 1e3
        assert found == pytest.approx(milliseconds, rel=1.5e-3), case


def test_totals_are_those_of_its_own_code() -> None:
    prefill, decode = (stage(name, "nvidia-h100-sxm5-80gb") for name in STAGES)
    assert sum(row.operations * row.count for row in prefill) == pytest.approx(30.81e12, rel=1e-3)
    assert sum(row.operations * row.count for row in decode) == pytest.approx(15.57e9, rel=1e-3)
    assert sum(row.bytes * row.count for row in decode) == pytest.approx(15.30e9, rel=1e-3)
    flash = stage("decode", "nvidia-h100-sxm5-80gb", 32, flash=True)
    assert sum(row.bytes * row.count for row in flash) == pytest.approx(49.9e9, rel=1e-3)


def test_its_defects_are_where_they_are_said_to_be() -> None:
    rows = {row.name: row for row in stage("prefill", "nvidia-h100-sxm5-80gb")}
    fused = {row.name: row for row in stage("prefill", "nvidia-h100-sxm5-80gb", flash=True)}["fused_attention"]
    assert rows["qk_matmul"].operations == 2 * 2048 * 2048 * 128 * 32  # "no causal mask"
    assert rows["qk_matmul"].store_activation_bytes == 2048 * 2048 * 32 * 2  # "scores stored"
    assert rows["qk_matmul"].load_activation_bytes == 2048 * 128 * 8 * 2  # "prefill q"
    assert fused.store_activation_bytes == 2 * 2048 * 2048 * 32 * 2  # "flash output"
    assert fused.load_kv_bytes == 16 * 2 * 2048 * 128 * 32 * 2  # "flash loses GQA"
    assert rows["lm_head"].operations == 4096 * 128256  # "head"
    assert rows["mlp_act"].operations == 2 * 2048 * 4096  # "activation"
    assert rows["attn_add"].load_activation_bytes == 2048 * 4096 * 2  # "residual"
    assert hardware("nvidia-h100-sxm5-80gb").bandwidth_per_s == 3072e9  # "bandwidth"
    assert set(DEFECTS) > {"no causal mask", "scores stored", "flash output", "head", "bandwidth"}


def test_eight_bits_count_only_for_all_three() -> None:
    on = hardware("nvidia_H100")
    peaks = [
        analyse(LLAMA, on, "decode", sequence=10, weight_bits=w, activation_bits=a, kv_bits=kv)[0].peak_per_s
        for w, a, kv in ((8, 8, 8), (8, 8, 16), (4, 16, 16), (4, 8, 4))
    ]
    assert peaks == [1979e12, 989.5e12, 989.5e12, 1979e12]
    with pytest.raises(ParityError, match="no INT8 rate"):
        analyse(LLAMA, hardware("intel_13900k"), "decode", sequence=1, weight_bits=8, activation_bits=8, kv_bits=8)


def test_what_it_cannot_express_is_refused() -> None:
    for name in ("mixtral-8x7b", "deepseek-v3", "gpt2", "whisper-large-v3", "mamba-2.8b", "vit-b-16"):
        with pytest.raises(ParityError, match="dense decoders with a gated MLP only"):
            dimensions(load_architecture(name))
    with pytest.raises(ParityError, match="LLM-Viewer's table has no nvidia-b200"):
        hardware("nvidia-b200-sxm-180gb")
    assert set(NAMES.values()) <= set(HARDWARE)


def test_its_table_becomes_ceilings_of_ours() -> None:
    ceilings = {ceiling.label: ceiling for ceiling in ceilings_of("nvidia-a100-sxm4-80gb")}
    assert ceilings["DRAM"].value_per_s == 2039e9
    assert {label for label in ceilings if label != "DRAM"} == {"matrix float16", "matrix int8"}
    assert all("472f71f" in ceiling.source.detail for ceiling in ceilings.values())
    assert len(ceilings_of("intel_13900k")) == 2
    with pytest.raises(ParityError, match="has no tpu"):
        ceilings_of("tpu")


DOCUMENT = Path(__file__).parents[2] / "docs" / "model-formulas.md"


@pytest.mark.parametrize("row", ["**Ridgeline, bound**", "Ridgeline, norms", "LLM-Viewer (", "LLM-Viewer, flash"])
def test_the_document_has_our_figures(row: str) -> None:
    (line,) = [text for text in DOCUMENT.read_text(encoding="utf-8").splitlines() if text.startswith(f"| {row}")]
    printed = [float(cell.strip(" *").replace(",", "")) for cell in line.split("|")[2:-1]]
    h100, a100 = "nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb"
    cases: list[tuple[str, Stage, int]] = [
        (h100, "prefill", 1), (h100, "prefill", 32), (h100, "decode", 1), (h100, "decode", 32),
        (a100, "prefill", 1), (a100, "decode", 1), (a100, "decode", 32),
    ]  # fmt: skip
    for value, (device, name, batch) in zip(printed, cases, strict=True):
        if row.startswith("LLM"):
            found = total_s(stage(name, device, batch, flash="flash" in row))
        else:
            phase = Phase.prefill(batch, 2048) if name == "prefill" else Phase.decode(batch, 2048)
            model, on = load_architecture("llama-3-8b"), catalogue()[device]
            found = float(step_time(model, phase, BFLOAT16, ONE_DEVICE, on, fused="bound" in row))
        assert found * 1e3 == pytest.approx(value, rel=1.5e-3)


# A stand-in for the one name that its code imports from transformers, so that the checkout runs without it.
RUN = """
import json, sys, types
stub = types.ModuleType("transformers")
class AutoConfig:
    @staticmethod
    def from_pretrained(path, **_):
        return types.SimpleNamespace(**json.load(open(path + "/config.json")))
stub.AutoConfig, stub.AutoTokenizer, stub.AutoModelForCausalLM = AutoConfig, None, None
sys.modules["transformers"] = stub
sys.path.insert(0, ".")
from model_analyzer import ModelAnalyzer
out = {}
for device, batch, sequence, w, a, kv, flash in json.loads(sys.argv[2]):
    results = ModelAnalyzer(sys.argv[1], device, "configs/Llama.py").analyze(sequence, batch, w, a, kv, flash)
    out[json.dumps([device, batch, sequence, w, a, kv, flash])] = results
print("RESULT" + json.dumps(out))
"""
COLUMNS = {
    "OPs": "operations",
    "memory_access": "bytes",
    "load_weight": "load_weight_bytes",
    "load_act": "load_activation_bytes",
    "store_act": "store_activation_bytes",
    "load_kv_cache": "load_kv_bytes",
    "store_kv_cache": "store_kv_bytes",
    "inference_time": "seconds",
    "bound": "bound_by",
}
CASES = [
    (device, batch, sequence, w, a, kv, flash)
    for device in ("nvidia_H100_SXM", "nvidia_A100_80G")
    for batch, sequence in ((1, 2048), (32, 2048), (3, 777))
    for w, a, kv in ((16, 16, 16), (8, 8, 8), (4, 16, 8))
    for flash in (False, True)
]


@pytest.mark.parametrize(
    "model",
    [
        {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 32, "vocab_size": 32000},
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 128256},
    ],
    ids=["Llama-2-7B", "Llama-3-8B"],
)  # fmt: skip
def test_every_row_is_that_of_a_checkout(model: dict[str, int], tmp_path: Path) -> None:
    checkout = os.environ.get("LLM_VIEWER_DIR")
    if not checkout:
        pytest.skip("LLM_VIEWER_DIR names no checkout of hahnyuan/LLM-Viewer at 472f71f")
    (tmp_path / "config.json").write_text(json.dumps(model))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), json.dumps(CASES)],
        cwd=checkout, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.rpartition("RESULT")[2])
    dims = Dimensions(
        hidden=model["hidden_size"], intermediate=model["intermediate_size"], layers=model["num_hidden_layers"],
        heads=model["num_attention_heads"], kv_heads=model["num_key_value_heads"], vocabulary=model["vocab_size"],
    )  # fmt: skip
    for case in CASES:
        device, batch, sequence, w, a, kv, flash = case
        found = theirs[json.dumps(list(case))]
        for name in STAGES:
            rows = analyse(
                dims, HARDWARE[device], name, sequence=sequence, batch=batch, flash=flash,
                weight_bits=w, activation_bits=a, kv_bits=kv,
            )  # fmt: skip
            assert [row.name for row in rows] == list(found[name])
            for row in rows:
                for column, ours in COLUMNS.items():
                    expected = found[name][row.name][column]
                    value = getattr(row, ours)
                    assert value == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-12))
            assert total_s(rows) == pytest.approx(found["total_results"][name]["inference_time"], rel=1e-12)
