"""The runnable decoder: its logits are those of a full recomputation, its products and attention are our kernels."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ridgeline.analytical.architectures import architecture_from_config
from ridgeline.kernels.registry import get_implementation, load
from ridgeline.workloads.runnable import decoder as decoder_module
from ridgeline.workloads.runnable.decoder import Decoder, generate
from ridgeline.workloads.runnable.recomputed import TOLERANCES, recomputed_logits, relative_error
from ridgeline.workloads.runnable.sizes import PRECISIONS, SIZES, DecoderSize, RunnableError, find_size

TINY = DecoderSize(
    name="tiny", layers=2, hidden=64, q_heads=4, kv_heads=2, ffn=96, vocabulary=97, tied=False, source="a test"
)


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    load()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_a_full_recomputation(precision: str, tied: bool) -> None:
    size = dataclasses.replace(TINY, tied=tied, kv_heads=4 if tied else 2)
    model = Decoder(size, precision, threads=1, seed=3)
    assert relative_error(model, prompt_tokens=7, output_tokens=5, batch=2) < TOLERANCES[precision] / 5
    assert relative_error(model, prompt_tokens=1, output_tokens=6) < TOLERANCES[precision] / 5


def test_a_wrong_cache_is_found() -> None:
    model = Decoder(TINY, "float32", threads=1)
    prompt = torch.randint(97, (1, 6), generator=torch.Generator().manual_seed(5))
    right = recomputed_logits(model, prompt)[:, -1]
    cache = model.cache(1, 6)
    model.forward(prompt[:, :5], cache)
    cache.values[0, :, :, 2] += 1.0
    wrong = model.forward(prompt[:, 5:], cache).double()
    assert torch.linalg.vector_norm(wrong - right) > 1e-3 * torch.linalg.vector_norm(right)


def test_generation_is_greedy_and_tells_every_token() -> None:
    model = Decoder(TINY, "float32", threads=1)
    prompt = torch.randint(97, (3, 4), generator=torch.Generator().manual_seed(2))
    told: list[int] = []
    made = generate(model, prompt, 5, lambda: told.append(1))
    assert (made.shape, len(told)) == ((3, 5), 5)
    logits = recomputed_logits(model, torch.cat((prompt, made), dim=1))
    assert torch.equal(logits[:, 3:-1].argmax(-1), made)


def test_the_registered_kernels_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def counted(operator: str, name: str) -> object:
        found = get_implementation(operator, name)

        def prepare(problem: object, constants: object, context: object) -> object:
            run = found.prepare(problem, constants, context)  # type: ignore[arg-type]

            def counting(inputs: object, out: torch.Tensor) -> None:
                used.append(f"{operator}/{name}")
                run(inputs, out)  # type: ignore[arg-type]

            return counting

        return dataclasses.replace(found, prepare=prepare)

    monkeypatch.setattr(decoder_module, "get_implementation", counted)
    for precision, product in (("float32", "gemm/torch"), ("int8", "weight_only_gemm/torch_int8_packed")):
        used.clear()
        generate(Decoder(TINY, precision, threads=1), torch.ones(1, 3, dtype=torch.long), 2)
        assert used.count(product) == 2 * (TINY.layers * 4 + 1)
        assert used.count("attention/torch_sdpa") == 2 * TINY.layers
        assert len(used) == 2 * (TINY.layers * 5 + 1)


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(RunnableError, match=r"no runnable model 'gpt': one of decoder-125m, geb-1\.3b"):
        find_size("gpt")
    with pytest.raises(RunnableError, match="precision 'int3'"):
        Decoder(TINY, "int3", threads=1)
    with pytest.raises(RunnableError, match="divisible by 16"):
        Decoder(dataclasses.replace(TINY, ffn=100), "int8", threads=1)
    with pytest.raises(RunnableError, match="hidden=66 must be heads"):
        dataclasses.replace(TINY, hidden=66)
    model = Decoder(TINY, "float32", threads=1)
    cache = model.cache(1, 2)
    with pytest.raises(RunnableError, match="3 tokens after 0 in a cache of 2"):
        model.forward(torch.ones(1, 3, dtype=torch.long), cache)
    model.forward(torch.ones(1, 1, dtype=torch.long), cache)
    with pytest.raises(RunnableError, match="2 tokens after 1"):
        model.forward(torch.ones(1, 2, dtype=torch.long), model_cache_of(model))


def model_cache_of(model: Decoder) -> decoder_module.Cache:
    """A cache with room that holds one token."""
    cache = model.cache(1, 8)
    model.forward(torch.ones(1, 1, dtype=torch.long), cache)
    return cache


def test_sizes_have_the_parameters_of_their_models() -> None:
    assert SIZES["decoder-125m"].parameter_count == pytest.approx(125e6, rel=0.02)
    assert SIZES["geb-1.3b"].parameter_count == pytest.approx(1.3e9, rel=0.05)
    for size in SIZES.values():
        assert architecture_from_config(size.config(), size.name).parameter_count == size.parameter_count
    assert "not looked up" in SIZES["geb-1.3b"].source
    model = Decoder(TINY, "float32", threads=1)
    weights = [linear.matrix().numel() for b in model.blocks for linear in (b.qkv, b.out, b.gate_up, b.down)]
    norms = [b.attention_norm.numel() + b.ffn_norm.numel() for b in model.blocks]
    others = model.head.matrix().numel() + model.embedding.numel() + model.final_norm.numel()
    assert sum(weights) + sum(norms) + others == TINY.parameter_count
