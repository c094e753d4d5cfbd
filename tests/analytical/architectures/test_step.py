"""Operators and time of a step: figures worked out by hand, and what has to hold for every model and layout."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.architectures import builtin_models, load_architecture
from ridgeline.analytical.architectures.operations import Operation, operations
from ridgeline.analytical.architectures.step import operation_times, step_time
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import Layout, LayoutError, Precisions
from ridgeline.analytical.limits import LimitError
from ridgeline.analytical.phases import Group, Phase, PhaseError

BF16, ONE = Precisions(), Layout()
DECODERS = [name for name, model in builtin_models().items() if model.architecture.encoder is None]
ENCODERS = [name for name, model in builtin_models().items() if model.architecture.encoder is not None]
H100, A100 = "nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb"
LLAMA = load_architecture("llama-3-8b")


def total(listed: tuple[Operation, ...], what: str, *names: str) -> Any:
    """Sum of ``flop``, ``bytes`` or ``link_bytes`` over the operations of these names, or over all that are not fused."""
    chosen = [o for o in listed if (o.name in names if names else not o.fusible)]
    assert chosen
    return sum(getattr(o.work, what) * o.count for o in chosen)


# Llama-3-8B by hand (bf16, 2,048 tokens): 32 layers of 2 x 218.1 M weights, 32 heads of 128, 128,256 x 4,096 logits.


def test_prefill_by_hand() -> None:
    listed = operations(LLAMA, Phase.prefill(1, 2048))
    linear = 2 * 2048 * 32 * (4096 * (4096 + 2048 + 4096) + 3 * 4096 * 14336)
    attention = 4 * 128 * 32 * 32 * 2048 * 2049 / 2
    head = 2 * 4096 * 128256
    assert total(listed, "flop", "qkv", "o", "gate_up", "down") == linear == pytest.approx(28.59e12, rel=1e-3)
    assert total(listed, "flop", "attention") == pytest.approx(1.10e12, rel=1e-3)
    found = sum(float(n) * o.count for o in listed for key, n in o.work.operations.items() if key.unit == "matrix")
    assert found == pytest.approx(linear + attention + head, rel=1e-12)
    assert found == pytest.approx(29.7e12, rel=1e-3)


def test_decode_by_hand() -> None:
    listed = operations(LLAMA, Phase.decode(1, 2048))
    weights = sum(o.work.read_bytes.get("weights", 0.0) * o.count for o in listed if o.family == "gemm")
    cache = sum(o.work.read_bytes.get("kv", 0.0) * o.count for o in listed)
    assert weights == 2 * (LLAMA.parameter_count - 128256 * 4096 - 65 * 4096) == pytest.approx(15.01e9, rel=1e-3)
    assert cache == 2048 * 131072 == pytest.approx(0.268e9, rel=2e-3)


@pytest.mark.parametrize(
    ("device", "phase", "by_hand_ms", "tolerance"),
    [
        # The hand's 30.0 and 95.1 ms hold all operations against the peak; reading 1.05 GB of lm_head for one token
        # adds 0.3 ms on an H100, 0.5 ms on an A100.
        (H100, Phase.prefill(1, 2048), 30.0, 0.015),
        (A100, Phase.prefill(1, 2048), 95.1, 0.01),
        (H100, Phase.decode(1, 2048), 4.56, 0.002),
        (A100, Phase.decode(1, 2048), 7.49, 0.002),
        # By hand without activations: they are 0.17 of 23.8 GB.
        (H100, Phase.decode(32, 2048), 7.04, 0.01),
        (A100, Phase.decode(32, 2048), 11.6, 0.01),
    ],
)
def test_times_by_hand(device: str, phase: Phase, by_hand_ms: float, tolerance: float) -> None:
    found = step_time(LLAMA, phase, BF16, ONE, catalogue()[device]) * 1e3
    assert found == pytest.approx(by_hand_ms, rel=tolerance)
    assert found > by_hand_ms * 0.999


@pytest.mark.parametrize("name", DECODERS)
def test_a_prefill_visits_every_weight_of_a_dense_model_once(name: str) -> None:
    """Two operations for each token and weight that it visits, scans, norms and embeddings left out."""
    model = load_architecture(name)
    listed = operations(model, Phase.prefill(1, 64))
    found = sum(
        o.work.operations[key] * o.count
        for o in listed
        if o.family in ("gemm", "moe_gemm", "routing")
        for key in o.work.operations
        if key.unit == "matrix"
    )
    stack = model.decoder
    assert stack is not None
    vocabulary = stack.outputs[-1]
    table = vocabulary.inputs * vocabulary.outputs
    tied = table if vocabulary.tied else 2 * table
    visited = model.active_parameter_count - tied
    # What is no matrix product: norms, biases, convolutions, states, learned positions: at most 1.5 % of any of these,
    # but for OPT-125M, GPT-2 with their position tables and the small convolutions of Mamba.
    assert found == pytest.approx(2 * 64 * visited + 2 * table, rel=0.02)


@pytest.mark.parametrize("name", DECODERS + ENCODERS)
def test_every_model_has_a_time_on_every_phase(name: str) -> None:
    model, device = load_architecture(name), catalogue()["nvidia-h200-sxm-141gb"]
    source = 1500 if model.encoder is not None else 0
    phases = []
    if model.encoder is not None:
        phases.append(Phase.encoder(2, model.encoder_length or 100))
    if model.decoder is not None:
        phases += [Phase.prefill(2, 64, source_length=source), Phase.decode(2, 64, source_length=source)]
    for phase in phases:
        alone = step_time(model, phase, BF16, ONE, device)
        assert 0.0 < alone < step_time(model, phase, BF16, ONE, device, fused=False)
        slower = step_time(model, phase, BF16, ONE, device, launch_s=1e-6)
        launches = sum(o.work.launches * o.count for o in operations(model, phase) if not o.fusible)
        assert slower == pytest.approx(alone + 1e-6 * launches)


@settings(max_examples=4)
@given(batch=st.integers(1, 300), context=st.integers(1, 5000))
def test_columns_and_numbers_agree(batch: int, context: int) -> None:
    device = catalogue()[H100]
    batches, contexts = np.array([1.0, batch, 7.0]), np.array([context, context, 10.0])
    for name in ("gemma-2-9b", "deepseek-v2-lite", "jamba-v0.1"):
        model = load_architecture(name)
        column = step_time(model, Phase.decode(batches, contexts), BF16, ONE, device)
        alone = [
            step_time(model, Phase.decode(b, c), BF16, ONE, device) for b, c in zip(batches, contexts, strict=True)
        ]
        assert column == pytest.approx(alone, rel=1e-12)


def test_more_work_takes_no_less_time() -> None:
    device, contexts = catalogue()[H100], np.linspace(1, 20000, 60).round()
    for name in ("llama-3-8b", "gemma-2-9b", "deepseek-v3", "mamba-2.8b", "qwen3-30b-a3b"):
        model = load_architecture(name)
        for phase in (Phase.decode(8, contexts), Phase.prefill(1, contexts), Phase.decode(contexts, 100)):
            assert np.all(np.diff(step_time(model, phase, BF16, ONE, device)) >= -1e-15)


# Phases


def test_a_mixed_batch_reads_its_weights_once() -> None:
    decode, chunk = Phase.decode(16, 1000), Phase.chunked(1, 512, 1024)
    together = operations(LLAMA, Phase.mixed(decode, chunk))
    parts = [operations(LLAMA, phase) for phase in (decode, chunk)]
    for name in ("qkv", "gate_up"):
        (mixed,) = [o for o in together if o.name == name]
        apart = [o for listed in parts for o in listed if o.name == name]
        assert mixed.work.flop == sum(o.work.flop for o in apart)
        assert mixed.work.read_bytes["weights"] == apart[0].work.read_bytes["weights"]
    assert total(together, "flop", "attention") == sum(total(listed, "flop", "attention") for listed in parts)
    # Only the decoding sequences need logits.
    assert total(together, "flop", "lm_head") == 2 * 16 * 4096 * 128256
    assert not [o for o in parts[1] if o.name == "lm_head"]


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "mamba-2.8b", "nemotron-h-8b", "qwen3-30b-a3b"])
def test_groups_of_a_mixed_batch_share_every_weight(name: str) -> None:
    model = load_architecture(name)
    once, twice = Phase.decode(8, 500), Phase.mixed(Phase.decode(4, 500), Phase.decode(4, 500))
    for alone, mixed in zip(operations(model, once), operations(model, twice), strict=True):
        assert mixed.work.flop == pytest.approx(alone.work.flop)
        assert mixed.work.read_bytes == pytest.approx(alone.work.read_bytes)


def test_chunks_of_a_prompt_do_the_work_of_the_whole() -> None:
    whole = operations(LLAMA, Phase.prefill(1, 2048))
    chunks = [operations(LLAMA, Phase.chunked(1, 512, start, last=start == 1536)) for start in range(0, 2048, 512)]
    for name in ("qkv", "attention", "gate_up", "down", "lm_head"):
        parts = [o for listed in chunks for o in listed if o.name == name]
        assert sum(o.work.flop * o.count for o in parts) == pytest.approx(total(whole, "flop", name), rel=1e-12)


def test_a_cached_prefix_is_read_and_not_made() -> None:
    listed = operations(LLAMA, Phase.prefill(1, 2048, cached=2000))
    assert total(listed, "flop", "qkv") == 48 * total(operations(LLAMA, Phase.prefill(1, 1)), "flop", "qkv")
    assert sum(o.work.read_bytes.get("kv", 0) * o.count for o in listed) == 2048 * 131072


def test_a_window_bounds_what_is_read() -> None:
    model = load_architecture("gemma-2-9b")
    listed = [o for o in operations(model, Phase.decode(1, 100_000)) if o.name == "attention"]
    per_token = 2 * 8 * 256 * 2
    assert sorted(float(o.work.read_bytes["kv"]) for o in listed) == [4096 * per_token, 100_000 * per_token]
    assert [o.count for o in listed] == [21, 21]


def test_experts_that_a_batch_touches() -> None:
    model = load_architecture("mixtral-8x7b")

    def read(batch: int) -> float:
        return total_weights(operations(model, Phase.decode(batch, 10)), "experts_up")

    one_expert = 2 * 4096 * 14336 * 2 * 32
    assert read(1) == pytest.approx(2 * one_expert)
    assert read(3) == pytest.approx((8 * (1 - 0.75**3)) * one_expert)
    assert read(1000) == pytest.approx(8 * one_expert)


def total_weights(listed: tuple[Operation, ...], name: str) -> float:
    """Bytes of weights that the operations of a name read."""
    return float(sum(o.work.read_bytes["weights"] * o.count for o in listed if o.name == name))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Phase.decode(0, 10), "sequences: must be at least 1, not 0"),
        (lambda: Phase.verify(1, 4, 3), "kv_length: counts all tokens"),
        (lambda: Phase.mixed(), "at least one phase"),
        (lambda: Phase.mixed(Phase.encoder(1, 4)), "a step of its own"),
        (lambda: Group(sequences=1, q_length=1, kv_length=1, sampled=-1), "sampled: must be at least 0"),
        (lambda: operations(LLAMA, Phase.encoder(1, 10)), "llama-3-8b has only a decoder"),
        (lambda: operations(load_architecture("bert-base"), Phase.decode(1, 10)), "bert-base has only an encoder"),
        (lambda: operations(load_architecture("whisper-large-v3"), Phase.decode(1, 10)), "source_length"),
    ],
)
def test_a_phase_that_cannot_be_is_one_line(make: Any, said: str) -> None:
    with pytest.raises(PhaseError, match=said):
        make()


# Precisions


def test_narrow_weights_are_read_narrow_and_computed_wide() -> None:
    plain = operations(LLAMA, Phase.decode(1, 100))
    narrow = Precisions(weights="int4", overrides={"lm_head": "bfloat16"}, group=128)
    listed = operations(LLAMA, Phase.decode(1, 100), narrow)
    assert total_weights(listed, "gate_up") == total_weights(plain, "gate_up") / 4
    assert total_weights(listed, "lm_head") == total_weights(plain, "lm_head")
    (up,) = [o for o in listed if o.name == "gate_up"]
    assert {key.a for key in up.work.operations if key.unit == "matrix"} == {"bfloat16"}
    assert up.work.read_bytes["scales"] == 2 * 4096 * 28672 / 128


def test_float8_products_leave_16_bits_between_them() -> None:
    eight = Precisions(weights="float8_e4m3fn", activations="float8_e4m3fn", kv="float8_e4m3fn")
    listed = operations(LLAMA, Phase.decode(4, 100), eight)
    (up,) = [o for o in listed if o.name == "gate_up"]
    assert [key.a for key in up.work.operations] == ["float8_e4m3fn"]
    assert up.work.read_bytes["activations"] == 4 * 4096
    assert up.work.written_bytes["activations"] == 4 * 28672 * 2
    (attention,) = [o for o in listed if o.name == "attention"]
    assert attention.work.read_bytes["kv"] == 4 * 100 * 2048
    assert "bfloat16" in {key.a for key in attention.work.operations}
    with pytest.raises(LimitError, match="nvidia-a100-sxm4-80gb has no matrix float8_e4m3fn rate"):
        operation_times(listed, catalogue()[A100])


# Layouts


@pytest.mark.parametrize("name", ["llama-3-70b", "mixtral-8x7b", "deepseek-v3", "nemotron-h-8b", "gpt-j-6b"])
def test_devices_of_a_replica_share_the_work(name: str) -> None:
    model, phase = load_architecture(name), Phase.prefill(2, 256)
    for family in ("attention", "moe_gemm", "scan"):
        alone, shared = (
            sum(o.work.flop * o.count for o in operations(model, phase, BF16, layout) if o.family == family)
            for layout in (ONE, Layout(tp=4))
        )
        assert shared * 4 == pytest.approx(alone, rel=2e-3)


def test_collectives_of_tensor_parallel_layers() -> None:
    listed = operations(LLAMA, Phase.decode(16, 100), BF16, Layout(tp=8))
    sums = [o for o in listed if o.name == "all_reduce" and o.block == "block"]
    assert [o.count for o in sums] == [32, 32]
    assert all(o.transfer is not None and o.transfer.ranks == 8 for o in sums)
    assert sums[0].work.link_bytes == 2 * 7 / 8 * 16 * 4096 * 2
    assert not [o for o in operations(LLAMA, Phase.decode(16, 100)) if o.transfer is not None]


def test_attention_and_mlp_side_by_side_share_one_sum() -> None:
    listed = operations(load_architecture("gpt-j-6b"), Phase.decode(1, 100), BF16, Layout(tp=2))
    assert len([o for o in listed if o.name == "all_reduce" and o.block == "block"]) == 1


def test_tokens_travel_to_experts_of_other_replicas() -> None:
    model = load_architecture("deepseek-v3")
    inside = operations(model, Phase.decode(64, 100), BF16, Layout(tp=8, ep=8))
    across = operations(model, Phase.decode(64, 100), BF16, Layout(tp=1, dp=8, ep=8))
    assert not [o for o in inside if o.transfer is not None and o.transfer.kind == "all_to_all"]
    exchanged = [o for o in across if o.transfer is not None and o.transfer.kind == "all_to_all"]
    assert {o.name for o in exchanged} == {"dispatch", "combine"}
    # Eight replicas of eight sequences see the experts of all 64, an eighth of which is here.
    up = [next(o for o in listed if o.name == "experts_up") for listed in (inside, across)]
    assert up[0].work.flop == pytest.approx(up[1].work.flop)
    assert up[0].work.read_bytes["weights"] == pytest.approx(up[1].work.read_bytes["weights"])


def test_a_step_passes_between_stages() -> None:
    listed = operations(LLAMA, Phase.decode(16, 100), BF16, Layout(pp=4))
    (sent,) = [o for o in listed if o.name == "send"]
    assert (sent.count, sent.work.link_bytes) == (3, 16 * 4096 * 2)


def test_two_devices_are_faster_than_one_but_not_twice() -> None:
    device, phase = catalogue()[H100], Phase.decode(8, 2000)
    alone = step_time(LLAMA, phase, BF16, ONE, device)
    both = step_time(LLAMA, phase, BF16, Layout(tp=2), device)
    hidden = step_time(LLAMA, phase, BF16, Layout(tp=2), device, overlap=1.0)
    assert alone / 2 < both < alone
    assert hidden < both


@pytest.mark.parametrize(
    ("layout", "model", "said"),
    [
        ({"tp": 3}, "llama-3-8b", "tp: llama-3-8b has 32 query heads, which 3 devices do not divide"),
        ({"tp": 16}, "llama-3-8b", None),
        ({"pp": 33}, "llama-3-8b", "pp: llama-3-8b has 32 layers"),
        ({"ep": 2, "tp": 2}, "llama-3-8b", "ep: llama-3-8b has no experts"),
        ({"ep": 16, "dp": 16}, "mixtral-8x7b", "ep: mixtral-8x7b has 8 experts"),
        ({"tp": 7}, "qwen2.5-0.5b", "tp: qwen2.5-0.5b has 2 KV heads: tp = 7 must divide"),
        ({"tp": 4, "ep": 3}, "mixtral-8x7b", "ep: 3 must divide tp = 4"),
        ({"tp": 0}, "llama-3-8b", "tp: must be a whole number of at least 1, not 0"),
    ],
)
def test_a_layout_that_cannot_be_is_one_line(layout: dict[str, int], model: str, said: str | None) -> None:
    if said is None:
        Layout(**layout).check(load_architecture(model))
        return
    with pytest.raises(LayoutError) as refused:
        Layout(**layout).check(load_architecture(model))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("precisions", "said"),
    [
        ({"weights": "int9"}, "weights: unknown precision 'int9'"),
        ({"overrides": {"lm_head": "bf16"}}, "lm_head: unknown precision 'bf16'"),
        ({"activations": "int8"}, "activations: int8 products need weights of as few bits, not bfloat16"),
    ],
)
def test_a_precision_that_cannot_be_is_one_line(precisions: dict[str, Any], said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        Precisions(**precisions)


def test_an_indexer_limits_what_attention_sees() -> None:
    dense = load_architecture("deepseek-v3")
    from ridgeline.analytical.architectures import architecture_from_config

    config = {**builtin_models()["deepseek-v3"].config, "index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128}
    sparse = architecture_from_config({**config, "model_type": "deepseek_v32"}, "v3.2")
    for context, share in ((1024, 1.0), (65536, 2048 / 65536)):
        full, kept = (
            next(o for o in operations(m, Phase.decode(4, context)) if o.name == "attention") for m in (dense, sparse)
        )
        assert kept.work.flop == pytest.approx(full.work.flop * share)
        assert kept.work.read_bytes["kv"] == pytest.approx(full.work.read_bytes["kv"] * share)
    assert sparse.kv_bytes_per_token("bfloat16") == 61 * (512 + 64 + 128) * 2
    assert dataclasses.replace(sparse, name=dense.name).parameter_count > dense.parameter_count
