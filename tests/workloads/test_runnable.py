"""The runnable decoder: its logits are those of a full recomputation, its products and attention are our kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from ridgeline.analytical.architectures import architecture_from_config
from ridgeline.kernels.gemm.native import MOST_ROWS
from ridgeline.kernels.native.build import NO_COMPILER
from ridgeline.kernels.registry import Run, Tensors, Unsupported, get_implementation, load
from ridgeline.workloads.runnable import decoder as decoder_module
from ridgeline.workloads.runnable.decoder import Decoder, Linear, generate
from ridgeline.workloads.runnable.recomputed import TOLERANCE, recomputed_logits, relative_error
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
    assert relative_error(model, prompt_tokens=7, output_tokens=5, batch=2) < TOLERANCE / 5
    assert relative_error(model, prompt_tokens=1, output_tokens=6) < TOLERANCE / 5


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


def test_our_kernels_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def counted(name: str, make: Callable[..., Run]) -> Callable[..., Run]:
        def making(*arguments: object) -> Run:
            run = make(*arguments)

            def counting(inputs: Tensors, out: torch.Tensor) -> None:
                used.append(name)
                run(inputs, out)

            return counting

        return making

    sdpa = get_implementation("attention", "torch_sdpa")
    attention = dataclasses.replace(sdpa, prepare=counted("attention", sdpa.prepare))
    monkeypatch.setattr(decoder_module, "get_implementation", lambda *_: attention)
    for product in ("flat", "flat_int8"):
        monkeypatch.setattr(decoder_module, product, counted(product, getattr(decoder_module, product)))
    for precision, product in (("float32", "flat"), ("int8", "flat_int8")):
        used.clear()
        generate(Decoder(TINY, precision, threads=1), torch.ones(1, 3, dtype=torch.long), 2)
        assert used.count(product) == 2 * (TINY.layers * 4 + 1)
        assert used.count("attention") == 2 * TINY.layers
        assert len(used) == 2 * (TINY.layers * 5 + 1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_more_rows_than_the_kernel_takes_go_through_it_in_shares(precision: str) -> None:
    linear = Linear(40, 24, precision, torch.Generator().manual_seed(0), threads=1)
    x = torch.randn(2 * MOST_ROWS + 3, 24)
    torch.testing.assert_close(linear(x).double(), x.double() @ linear.matrix(), rtol=1e-5, atol=1e-5)


def test_without_a_compiler_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object) -> None:
        raise Unsupported(NO_COMPILER)

    monkeypatch.setattr(decoder_module, "flat_panels", no_compiler)
    with pytest.raises(RunnableError, match=r"the model's products are C\+\+: no C\+\+ compiler found: install g\+\+"):
        Decoder(TINY, "float32", threads=1)


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(RunnableError, match=r"no runnable model 'gpt': one of decoder-125m, geb-1\.3b"):
        find_size("gpt")
    with pytest.raises(RunnableError, match="precision 'int3'"):
        Decoder(TINY, "int3", threads=1)
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
