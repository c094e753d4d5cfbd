"""Reading config.json files: what is refused, in one line with file and key; what is written down instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ridgeline.analytical.architectures import (
    ArchitectureError,
    architecture_from_config,
    builtin_models,
    load_architecture,
)
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Experts

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": False,
}


def attentions(config: dict[str, Any]) -> list[Attention]:
    """The attention of every layer."""
    stack = architecture_from_config(config, "config.json").decoder
    assert stack is not None
    return [part for block in stack.layers for part in block.parts if isinstance(part, Attention)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "config.json: hidden_size: missing; llama needs it"),
        ({"vocab_size": "100"}, "config.json: vocab_size: must be a whole number of at least 1, not '100'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: must be a whole number of at least 1, not 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: must divide num_attention_heads: 4 heads, 3"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3}, "num_attention_heads: must divide hidden_size"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: must be true or false, not 'no'"),
        ({"hidden_act": "mish"}, "hidden_act: unknown activation 'mish': one of silu"),
        ({"model_type": "llama9"}, "model_type: unknown architecture 'llama9' (near: llama, llama4)"),
        ({"model_type": None}, "model_type: missing"),
    ],
)
def test_a_bad_key_is_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ArchitectureError) as refused:
        architecture_from_config({**LLAMA, **change}, "config.json")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", builtin_models())
def test_no_key_that_counts_can_be_left_out(name: str) -> None:
    """Without any one key, a model is refused, has the same parameters, or the note says what was taken for granted."""
    model = builtin_models()[name]
    whole = model.architecture
    for key in model.config:
        rest = {k: v for k, v in model.config.items() if k != key}
        try:
            built = architecture_from_config(rest, "config.json")
        except ArchitectureError as error:
            said = str(error)
        else:
            said = " ".join(built.notes) if built.parameter_count != whole.parameter_count else key
        assert key in said or "model_type" in said, f"{name}: {key} changed the count in silence"


def test_defaults_of_the_format_are_noted() -> None:
    built = architecture_from_config({k: v for k, v in LLAMA.items() if k != "tie_word_embeddings"}, "config.json")
    assert "tie_word_embeddings = false" in built.notes[-1]
    assert "num_key_value_heads" not in built.notes[-1]


def test_layers_that_predict_further_tokens_are_noted() -> None:
    assert load_architecture("deepseek-v3").notes[0] == "1 multi-token-prediction layer not counted"


def test_a_quantised_checkpoint_is_noted() -> None:
    built = architecture_from_config({**LLAMA, "quantization_config": {"quant_method": "fp8"}}, "config.json")
    assert built.notes[0] == "quantization_config (fp8) is not read: state the precisions of weights and activations"


def test_class_names_serve_where_model_type_is_missing() -> None:
    config = {**LLAMA, "model_type": None, "architectures": ["LlamaForCausalLM"]}
    assert architecture_from_config(config, "c").parameter_count == architecture_from_config(LLAMA, "c").parameter_count


def test_windows_by_layer() -> None:
    gemma = builtin_models()["gemma-3-1b"].config
    windows = [each.window for each in attentions(gemma)]
    assert windows[:7] == [512, 512, 512, 512, 512, None, 512]
    named = {**gemma, "layer_types": ["full_attention"] * 26}
    assert [each.window for each in attentions(named)] == [None] * 26
    with pytest.raises(ArchitectureError, match="layer_types: must name 26 layers"):
        attentions({**gemma, "layer_types": ["full_attention"]})
    assert {each.window for each in attentions(builtin_models()["mistral-7b"].config)} == {4096}
    assert {each.window for each in attentions(builtin_models()["qwen2.5-7b"].config)} == {None}
    switched_on = {**builtin_models()["qwen2.5-7b"].config, "use_sliding_window": True, "sliding_window": 4096}
    by_layer = [each.window for each in attentions({**switched_on, "max_window_layers": 21})]
    assert by_layer == [None] * 21 + [4096] * 7


def test_hybrid_layers_come_in_their_order() -> None:
    stack = load_architecture("jamba-v0.1").decoder
    assert stack is not None
    kinds = [block.mixers[0].kind for block in stack.layers]
    assert [i for i, kind in enumerate(kinds) if kind == "GQA"] == [4, 12, 20, 28]
    routed = [i for i, block in enumerate(stack.layers) if any(isinstance(p, Experts) for p in block.parts)]
    assert routed == list(range(1, 32, 2))
    assert sum(run.count for run in stack.runs) == stack.layer_count == 32


def test_a_config_with_images_names_what_is_left_out() -> None:
    config = {"model_type": "qwen3_vl", "text_config": {**builtin_models()["qwen3-8b"].config}, "vision_config": {}}
    built = architecture_from_config(config, "config.json")
    assert built.parameter_count == 8190735360
    assert "vision tower is not counted" in built.notes[0]
    with pytest.raises(ArchitectureError, match="text_config: hidden_size: missing"):
        architecture_from_config({"model_type": "qwen3_vl", "text_config": {"model_type": "qwen3"}}, "config.json")


def test_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert load_architecture(folder).name == "tiny-llama"
    assert load_architecture(folder / "config.json") == load_architecture(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ArchitectureError, match=r"config\.json: Expecting property name"):
        load_architecture(folder)
    with pytest.raises(ArchitectureError, match="No such file"):
        load_architecture(tmp_path / "missing.json")
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ArchitectureError, match="must hold one JSON object, not list"):
        load_architecture(folder)
    with pytest.raises(ArchitectureError, match="no file and no built-in model"):
        load_architecture("llama-9")
