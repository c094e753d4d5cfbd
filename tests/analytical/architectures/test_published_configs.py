"""Real config.json files of others: those in the ``data`` wheel, read by path; nothing of it is imported."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from ridgeline.analytical.architectures import ArchitectureError, architecture_from_config, load_architecture

# Parameters as the model cards print them, and what their rounding allows. Vision towers and layers that predict
# further tokens are left out.
PRINTED = {
    "Qwen--Qwen3-Coder-480B-A35B-Instruct": (480e9, 0.5e9),
    "Qwen--Qwen3-0.6B": (0.6e9, 0.05e9),
    "Qwen--Qwen3.5-397B-A17B": (397e9, 1e9),
    "meta-llama--Meta-Llama-3.1-405B": (405.85e9, 0.005e9),
    "mistralai--Mixtral-8x22B-v0.1": (140.6e9, 0.05e9),
    "moonshotai--Kimi-K2-Instruct": (1.026e12, 0.0005e12),
    "nvidia--Llama-3_3-Nemotron-Super-49B-v1": (49.9e9, 0.05e9),
    "nvidia--Nemotron-H-56B-Base-8K": (56e9, 0.5e9),
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (31.6e9, 0.05e9),
    "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-FP8": (120.6e9, 0.1e9),
    "openai--gpt-oss-120b": (116.83e9, 0.005e9),
    "MiniMaxAI--MiniMax-M2.5": (229e9, 0.5e9),
    "zai-org--GLM-5": (744e9, 0.5e9),
}
UNKNOWN = {
    "deepseek_ref",
    "deepseek_v4",
    "gemma4",
    "kimi_k3",
    "mimo_v2_flash",
    "minimax_m3",
    "minimax_m3_vl",
    "step3p7",
}
"""Architectures in the wheel that are not read: each is refused by name."""


@pytest.fixture(scope="module")
def configs() -> dict[str, Any]:
    """Config files of the wheel by their model's name; quantisation files are none."""
    try:
        files = importlib.metadata.files("aiconfigurator-core") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("aiconfigurator-core is not installed: pip install 'ridgeline[data]'")
    found = {}
    for file in files:
        name = Path(str(file)).name
        if "model_configs" in str(file) and name.endswith("_config.json") and "hf_quant" not in name:
            found[name.removesuffix("_config.json")] = json.loads(Path(str(file.locate())).read_text(encoding="utf-8"))
    return found


def test_every_config_is_read_or_refused_by_name(configs: dict[str, Any]) -> None:
    assert len(configs) > 80
    refused = set()
    for name, config in configs.items():
        if config["model_type"] in UNKNOWN:
            with pytest.raises(ArchitectureError, match=f"model_type: unknown architecture '{config['model_type']}'"):
                architecture_from_config(config, name)
            refused.add(config["model_type"])
        else:
            built = architecture_from_config(config, name)
            assert built.parameter_count >= built.active_parameter_count > 1e8
    assert refused == UNKNOWN


@pytest.mark.parametrize("name", PRINTED)
def test_their_parameters_are_those_printed(configs: dict[str, Any], name: str) -> None:
    printed, rounding = PRINTED[name]
    assert abs(architecture_from_config(configs[name], name).parameter_count - printed) <= rounding


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("meta-llama--Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama--Meta-Llama-3.1-405B", "llama-3.1-405b"),
        ("mistralai--Mixtral-8x7B-v0.1", "mixtral-8x7b"),
        ("Qwen--Qwen3-8B", "qwen3-8b"),
        ("Qwen--Qwen3-32B", "qwen3-32b"),
        ("Qwen--Qwen3-30B-A3B", "qwen3-30b-a3b"),
        ("Qwen--Qwen3-235B-A22B", "qwen3-235b-a22b"),
        ("deepseek-ai--DeepSeek-V3", "deepseek-v3"),
        ("openai--gpt-oss-20b", "gpt-oss-20b"),
    ],
)
def test_built_in_models_are_those_files(configs: dict[str, Any], name: str, builtin: str) -> None:
    assert architecture_from_config(configs[name], name).stacks == load_architecture(builtin).stacks
