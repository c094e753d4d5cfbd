"""Every built-in model has the parameters that were published for it, and says where that stands."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.analytical.architectures import builtin_models, load_architecture
from ridgeline.analytical.architectures.tensors import weights_of

# As printed by the models' own sources, in parameters; the exact counts stand in each model's file.
PUBLISHED = {
    "llama-3-8b": 8.03e9,
    "llama-3-70b": 70.55e9,
    "llama-3.1-405b": 405.85e9,
    "mistral-7b": 7.24e9,
    "qwen2.5-7b": 7.62e9,
    "qwen3-32b": 32.8e9,
    "gemma-2-9b": 9.24e9,
    "phi-3-mini": 3.82e9,
    "gpt2": 124.4e6,
    "gpt-j-6b": 6.05e9,
    "gpt-neox-20b": 20.55e9,
    "opt-6.7b": 6.66e9,
    "bloom-7b1": 7.07e9,
    "mixtral-8x7b": 46.70e9,
    "qwen3-30b-a3b": 30.5e9,
    "deepseek-v2-lite": 15.7e9,
    "deepseek-v3": 671e9,
    "mamba-2.8b": 2.77e9,
    "jamba-v0.1": 51.57e9,
    "bert-base": 109.5e6,
    "vit-b-16": 86.6e6,
    "deit-s": 22.1e6,
    "convnext-t": 28.6e6,
    "whisper-large-v3": 1.54e9,
    "canary-1b-flash": 883e6,
    "dit-xl-2": 675e6,
}
ACTIVE = {
    "mixtral-8x7b": 12.9e9,
    "deepseek-v3": 37e9,
    "qwen3-30b-a3b": 3.3e9,
    "qwen3-235b-a22b": 22e9,
    "gpt-oss-20b": 3.6e9,
    "jamba-v0.1": 12e9,
}
"""Activated parameters that the models' reports print, rounded as they round them."""


def test_at_least_thirty_models_ship() -> None:
    assert len(builtin_models()) >= 30


@pytest.mark.parametrize("name", builtin_models())
def test_parameters_are_those_published(name: str) -> None:
    model = builtin_models()[name]
    count = model.architecture.parameter_count
    assert count == pytest.approx(model.published.parameters, rel=0.005)
    if model.published.exact is not None:
        assert count == model.published.exact
    assert model.source
    assert model.checked
    assert model.published.source


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_table(name: str) -> None:
    assert load_architecture(name).parameter_count == pytest.approx(PUBLISHED[name], rel=0.005)


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_are_about_those_printed(name: str) -> None:
    active = load_architecture(name).active_parameter_count
    if name == "gpt-oss-20b":
        # Its card leaves the input embedding out.
        active -= 201088 * 2880
    assert active == pytest.approx(ACTIVE[name], rel=0.03)


@pytest.mark.parametrize("name", builtin_models())
def test_weights_by_operator_add_up(name: str) -> None:
    for stack in load_architecture(name).stacks:
        blocks = [part for block, _ in stack.distinct for part in block.parts]
        for part in (*stack.inputs, *blocks, *stack.outputs):
            assert sum(each.count for each in weights_of(part)) == part.parameter_count


def test_attention_kinds() -> None:
    kinds = {
        "llama-2-7b": "MHA",
        "llama-3-8b": "GQA",
        "gemma-3-1b": "MQA",
        "deepseek-v3": "MLA",
        "mamba-2.8b": "SSM",
        "jamba-v0.1": "hybrid",
        "nemotron-h-8b": "hybrid",
        "convnext-t": "none",
    }
    assert {name: load_architecture(name).attention_kind for name in kinds} == kinds


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("llama-3-8b", 2 * 32 * 8 * 128 * 2),  # 128 KiB, Llama 3's report
        ("deepseek-v3", 61 * (512 + 64) * 2),  # 70.272 KB, DeepSeek-V3, table of "Insights into DeepSeek-V3"
        ("mamba-2.8b", 0),
        ("jamba-v0.1", 4 * 2 * 8 * 128 * 2),  # four attending layers
    ],
)
def test_cache_of_a_token(name: str, per_token: int) -> None:
    assert load_architecture(name).kv_bytes_per_token("bfloat16") == per_token
    assert load_architecture(name).kv_bytes_per_token("float8_e4m3fn") == per_token / 2


def test_recurrent_state_of_a_sequence() -> None:
    # 64 layers of 5,120 channels: a state of 16 each and the last 4 inputs of the convolution.
    assert load_architecture("mamba-2.8b").state_bytes_per_sequence("float32") == 64 * 5120 * (16 + 4) * 4
    assert load_architecture("llama-3-8b").state_bytes_per_sequence("float32") == 0


def test_names_are_found_by_alias_and_case() -> None:
    assert load_architecture("meta-llama/Meta-Llama-3-8B") == load_architecture("LLAMA-3-8B")


@given(data=st.data())
def test_stretches_of_a_stack_hold_its_blocks(data: st.DataObject) -> None:
    stack = load_architecture(
        data.draw(st.sampled_from(("gemma-2-9b", "mixtral-8x7b", "deepseek-v3", "jamba-v0.1")))
    ).main
    first = data.draw(st.integers(0, stack.layer_count))
    end = data.draw(st.integers(first, stack.layer_count))
    assert dict(stack.distinct_between(first, end)) == Counter(stack.layers[first:end])
