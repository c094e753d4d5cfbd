"""``ridgeline model table``: the operators of a model on a device, phase by phase."""

from __future__ import annotations

from typing import Annotated

import typer


def table(
    model: Annotated[str, typer.Argument(help="A built-in model (`ridgeline list models`), or a config.json.")],
    device: Annotated[str, typer.Option("--device", help="Id, other name or TOML file of a device.")],
    phase: Annotated[
        list[str] | None,
        typer.Option(
            "--phase",
            help="prefill, decode, chunked, mixed, verify or encoder; repeatable (default: what the model has).",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences, of all replicas together.")] = 1,
    prompt: Annotated[int, typer.Option(help="Tokens of a prompt, or of an encoder's input.")] = 2048,
    context: Annotated[
        int | None, typer.Option(help="Tokens that a decoded token sees, itself included (default: the prompt).")
    ] = None,
    cached: Annotated[int, typer.Option(help="Tokens of a prompt that are in the cache already.")] = 0,
    chunk: Annotated[int, typer.Option(help="Tokens of a chunk of a prompt.")] = 512,
    drafted: Annotated[int, typer.Option(help="Guesses that a speculative step verifies.")] = 4,
    source: Annotated[
        int | None, typer.Option(help="Tokens of an encoder's output that a decoder reads (default: the model's).")
    ] = None,
    weights: Annotated[str, typer.Option(help="What matrices are stored in.")] = "bfloat16",
    activations: Annotated[str, typer.Option(help="What matrix products compute in.")] = "bfloat16",
    kv: Annotated[str, typer.Option("--kv", help="What keys and values are cached in.")] = "bfloat16",
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="OPERATOR=PRECISION of weights kept otherwise; repeatable.")
    ] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a 16-bit scale (default: none do).")] = None,
    tp: Annotated[int, typer.Option("--tp", help="Tensor parallel.")] = 1,
    pp: Annotated[int, typer.Option("--pp", help="Pipeline parallel.")] = 1,
    ep: Annotated[int, typer.Option("--ep", help="Expert parallel.")] = 1,
    dp: Annotated[int, typer.Option("--dp", help="Data parallel: replicas that share the sequences.")] = 1,
    overlap: Annotated[float, typer.Option(help="Share of the collectives' time that does not show, 0 to 1.")] = 0.0,
    launch_us: Annotated[float, typer.Option(help="Overhead of each launch, in microseconds.")] = 0.0,
    any_size: Annotated[bool, typer.Option("--any-size", help="Show it though it does not fit the memory.")] = False,
    parity: Annotated[
        str | None, typer.Option(help="llm-viewer: by LLM-Viewer's formulas and hardware table, defects included.")
    ] = None,
    flash: Annotated[bool, typer.Option("--flash", help="With --parity: its FlashAttention variant.")] = False,
    software: Annotated[
        str | None,
        typer.Option(
            help="vllm, sglang or trtllm: predict by its measured kernels where there are any (extra `data`)."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Show each operator's operations, bytes, intensity, bound and predicted time on a device of the catalogue.

    The bound is what no implementation can beat; in its total norms, rotations, activations and sums count as fused into
    their neighbours. The prediction is what kernels of today take, each operator for itself, and says what it rests on.
    """
    from ridgeline.analytical.model_table import Request, make_table
    from ridgeline.bench.model_table import print_table

    request = Request(
        model=model, device=device, phases=tuple(phase or ()), batch=batch, prompt=prompt, context=context,
        cached=cached, chunk=chunk, drafted=drafted, source=source, weights=weights, activations=activations, kv=kv,
        keep=tuple(keep or ()), group=group, tp=tp, pp=pp, ep=ep, dp=dp, overlap=overlap, launch_s=launch_us * 1e-6,
        any_size=any_size, parity=parity, flash=flash,
        software=software,
    )  # fmt: skip
    print_table(make_table(request), as_json=json)
