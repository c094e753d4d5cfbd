"""A step of a model on a device, operator by operator, as one document: what the command and the dashboard show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical import llm_viewer
from ridgeline.analytical.architectures import Architecture, load_architecture
from ridgeline.analytical.architectures.operations import Operation, operations
from ridgeline.analytical.architectures.step import OperationTime, operation_times
from ridgeline.analytical.calibration.public_tables import BACKENDS
from ridgeline.analytical.calibration.step_constants import Attending, step_constants
from ridgeline.analytical.calibration.surfaces import measured_kernels, predicted_seconds
from ridgeline.analytical.catalogue import find_device
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, LayoutError, Precisions
from ridgeline.analytical.limits import LimitError
from ridgeline.analytical.memory import fit, largest_batch, memory
from ridgeline.analytical.phases import Phase
from ridgeline.analytical.prediction import Tier
from ridgeline.analytical.quantities import bits

PHASES = ("prefill", "decode", "chunked", "mixed", "verify", "encoder")
TRIED_TP = (2, 4, 8, 16, 32, 64)


class TableError(ValueError):
    """A request that makes no table. One line."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to put into the table; the options of ``ridgeline model table``."""

    model: str
    device: str
    phases: tuple[str, ...] = ()
    batch: int = 1
    prompt: int = 2048
    context: int | None = None
    cached: int = 0
    chunk: int = 512
    drafted: int = 4
    source: int | None = None
    weights: str = "bfloat16"
    activations: str = "bfloat16"
    kv: str = "bfloat16"
    keep: tuple[str, ...] = ()
    group: int | None = None
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1
    overlap: float = 0.0
    launch_s: float = 0.0
    any_size: bool = False
    parity: str | None = None
    flash: bool = False
    software: str | None = None


def make_table(request: Request) -> dict[str, Any]:
    """The document of a request.

    Raises:
        TableError, ArchitectureError, DeviceError, LayoutError, PhaseError, LimitError, CollectiveError, ParityError:
            one line for what cannot be.
    """
    architecture = load_architecture(request.model)
    for name in request.phases:
        if name not in PHASES:
            raise TableError(f"--phase: unknown phase {name!r}: one of {', '.join(PHASES)}")
    if request.parity is not None:
        return _parity(request, architecture)
    if request.software is not None and request.software not in BACKENDS:
        raise TableError(f"--software: no public table of {request.software!r}: one of {', '.join(BACKENDS)}")
    if request.flash:
        raise TableError("--flash: belongs to --parity llm-viewer; our own table never stores scores")
    device = find_device(request.device)
    precisions = Precisions(
        weights=request.weights,
        activations=request.activations,
        kv=request.kv,
        overrides=_kept(request.keep),
        group=request.group,
    )
    layout = Layout(tp=request.tp, pp=request.pp, ep=request.ep, dp=request.dp)
    names = request.phases or phases_of(architecture)
    phases = [(name, _phase(name, request, architecture)) for name in names]
    held = _memory(request, architecture, device, precisions, layout, phases)
    return {
        "model": architecture.name,
        "parameters": architecture.parameter_count,
        "device": device.id,
        "formulas": "ridgeline",
        "precisions": precisions.label,
        "layout": layout.label,
        "memory": held,
        "phases": [
            _phase_table(name, phase, request, architecture, device, precisions, layout) for name, phase in phases
        ],
        "notes": list(architecture.notes),
    }


def phases_of(architecture: Architecture) -> tuple[str, ...]:
    """Phases that are shown where none is asked for: those that the model has."""
    encoder = ("encoder",) if architecture.encoder is not None else ()
    return encoder + (("prefill", "decode") if architecture.decoder is not None else ())


def _phase(name: str, request: Request, architecture: Architecture) -> Phase:
    context = request.context or request.prompt
    if name == "encoder":
        return Phase.encoder(request.batch, architecture.encoder_length or request.prompt)
    source = 0
    if architecture.encoder is not None:
        source = request.source or architecture.encoder_length or request.prompt
    if name == "prefill":
        return Phase.prefill(request.batch, request.prompt, cached=request.cached, source_length=source)
    if name == "decode":
        return Phase.decode(request.batch, context, source_length=source)
    if source:
        raise TableError(f"--phase: {name} is not counted for encoder-decoder models: encoder, prefill or decode")
    if name == "chunked":
        return Phase.chunked(request.batch, request.chunk, request.cached)
    if name == "verify":
        return Phase.verify(request.batch, request.drafted, context)
    return Phase.mixed(Phase.decode(request.batch, context), Phase.chunked(1, request.chunk, request.cached))


def _kept(keep: Sequence[str]) -> dict[str, str]:
    kept = {}
    for text in keep:
        operator, equals, precision = text.partition("=")
        if not (operator and equals and precision):
            raise TableError(f"--keep: must be OPERATOR=PRECISION, such as lm_head=bfloat16, not {text!r}")
        kept[operator] = precision
    return kept


def _memory(
    request: Request,
    architecture: Architecture,
    device: Device,
    precisions: Precisions,
    layout: Layout,
    phases: Sequence[tuple[str, Phase]],
) -> dict[str, Any]:
    length = max(float(group.kv_length) for _, phase in phases for group in phase.groups)
    source = max(float(group.source_length) for _, phase in phases for group in phase.groups)
    tokens = max(float(np.ceil(phase.tokens / layout.dp)) for _, phase in phases)
    needs: dict[str, Any] = {"length": length, "tokens": tokens, "source_length": source}
    held = memory(architecture, precisions, layout, sequences=request.batch, **needs)
    found = fit(held, device)
    if not found.fits and not request.any_size:
        raise LayoutError(
            f"{architecture.name} {found.reason}; {_remedy(request, architecture, device, precisions, needs)}"
        )
    most = None
    if architecture.decoder is not None:
        most = largest_batch(
            architecture, found.has_bytes, precisions, layout, length=length, tokens=tokens, source_length=source
        )
    return {
        "weights_bytes": float(held.weights_bytes),
        "kv_bytes": float(held.kv_bytes),
        "activations_bytes": float(held.activations_bytes),
        "total_bytes": float(held.total_bytes),
        "capacity_bytes": found.has_bytes,
        "fits": found.fits,
        "reason": found.reason or None,
        "largest_batch": most,
    }


def _remedy(
    request: Request, architecture: Architecture, device: Device, precisions: Precisions, needs: dict[str, Any]
) -> str:
    for tp in TRIED_TP:
        if tp <= request.tp or tp % request.ep:
            continue
        layout = Layout(tp=tp, pp=request.pp, ep=request.ep, dp=request.dp)
        try:
            held = memory(architecture, precisions, layout, sequences=request.batch, **needs)
        except LayoutError:
            continue
        if fit(held, device).fits:
            return f"--tp {tp} would, or --any-size to show it all the same"
    return "use narrower --weights or --kv, a smaller --batch, or --any-size to show it all the same"


def _phase_table(
    name: str,
    phase: Phase,
    request: Request,
    architecture: Architecture,
    device: Device,
    precisions: Precisions,
    layout: Layout,
) -> dict[str, Any]:
    listed = operations(architecture, phase, precisions, layout)
    try:
        timed = operation_times(listed, device, overlap=request.overlap)
    except LimitError as error:
        lacks = str(error).partition(";")[0]
        raise TableError(f"{lacks}; nothing is substituted: choose --activations that it has") from None
    predicted, evidence = _predicted(name, listed, device, request)
    everything = sum(float(each.total_s) for each in timed)
    kept = [each for each in timed if not each.operation.fusible]
    launches = sum(float(each.operation.work.launches) * each.operation.count for each in kept)
    overhead_s = request.launch_s * launches
    fused_s = sum(float(each.total_s) for each in kept) + overhead_s
    return {
        "phase": name,
        "sequences": float(phase.sequences),
        "tokens": float(phase.tokens),
        "operators": [
            {**_row(each, fused_s), "predicted_s": seconds} for each, seconds in zip(timed, predicted, strict=True)
        ],
        "operations": sum(float(each.operation.work.flop) * each.operation.count for each in timed),
        "bytes": sum(float(each.operation.work.bytes) * each.operation.count for each in kept),
        "launches": launches,
        "overhead_s": overhead_s,
        "seconds": fused_s,
        "unfused_s": everything + request.launch_s * sum(
            float(each.operation.work.launches) * each.operation.count for each in timed
        ),
        "tokens_per_s": float(phase.tokens) / fused_s,
        "predicted_s": None if evidence is None else sum(predicted),
        "evidence": evidence,
    }  # fmt: skip


def _predicted(
    name: str, listed: Sequence[Operation], device: Device, request: Request
) -> tuple[list[Any], Tier | None]:
    """Seconds that each operator is expected to take in all its runs, norms and sums as kernels of their own; and what they
    rest on. No prediction for a CPU: constants come from accelerators only."""
    if device.kind == "cpu":
        return [None] * len(listed), None
    attending: Attending = "both" if name == "mixed" else "decode" if name in ("decode", "verify") else "prefill"
    constants = step_constants(device, attending, request.activations)
    kernels = measured_kernels(device, request.software) if request.software else None
    found = [float(predicted_seconds(each, device, constants.parameters, kernels)) for each in listed]
    return found, "surface" if kernels is not None and kernels.serve(listed) else constants.tier


def _row(timed: OperationTime, total_s: float) -> dict[str, Any]:
    operation = timed.operation
    work, count = operation.work, operation.count
    seconds = float(timed.total_s)
    moved = float(work.bytes)
    return {
        "block": operation.block,
        "operator": operation.name,
        "family": operation.family,
        "count": count,
        "operations": float(work.flop) * count,
        "bytes": moved * count,
        "link_bytes": float(work.link_bytes) * count,
        "intensity_flop_per_byte": float(work.flop) / moved if moved else None,
        "bound_by": str(timed.bound_by),
        "seconds": seconds,
        "fused": operation.fusible,
        "share": None if operation.fusible else seconds / total_s,
    }


def _parity(request: Request, architecture: Architecture) -> dict[str, Any]:
    if request.parity != "llm-viewer":
        raise TableError(f"--parity: unknown {request.parity!r}: llm-viewer")
    if (request.tp, request.pp, request.ep, request.dp) != (1, 1, 1, 1):
        raise TableError("--parity: LLM-Viewer knows one device only: leave --tp, --pp, --ep and --dp out")
    own = request.device in llm_viewer.HARDWARE
    on = llm_viewer.hardware(request.device if own else find_device(request.device).id)
    model = llm_viewer.dimensions(architecture)
    widths = [bits(name) for name in (request.weights, request.activations, request.kv)]
    documents = []
    for name in request.phases or llm_viewer.STAGES:
        if name not in llm_viewer.STAGES:
            raise TableError(f"--phase: LLM-Viewer has prefill and decode, not {name}")
        stage: llm_viewer.Stage = "prefill" if name == "prefill" else "decode"
        length = request.prompt if stage == "prefill" else request.context or request.prompt
        rows = llm_viewer.analyse(
            model, on, stage, sequence=length, batch=request.batch, flash=request.flash,
            weight_bits=widths[0], activation_bits=widths[1], kv_bits=widths[2],
        )  # fmt: skip
        total = llm_viewer.total_s(rows)
        tokens = request.batch * (length if stage == "prefill" else 1)
        documents.append(
            {
                "phase": stage,
                "sequences": float(request.batch),
                "tokens": float(tokens),
                "operators": [
                    {
                        "block": "outputs" if row.name == "lm_head" else "block",
                        "operator": row.name,
                        "count": row.count,
                        "operations": row.operations * row.count,
                        "bytes": row.bytes * row.count,
                        "intensity_flop_per_byte": row.intensity_flop_per_byte,
                        "bound_by": row.bound_by,
                        "seconds": row.seconds * row.count,
                        "share": row.seconds * row.count / total,
                    }
                    for row in rows
                ],
                "operations": sum(row.operations * row.count for row in rows),
                "bytes": sum(row.bytes * row.count for row in rows),
                "seconds": total,
                "tokens_per_s": tokens / total,
            }
        )
    return {
        "model": architecture.name,
        "parameters": architecture.parameter_count,
        "device": request.device,
        "formulas": "llm-viewer 472f71f" + (" flash" if request.flash else ""),
        "precisions": f"w{widths[0]} a{widths[1]} kv{widths[2]}",
        "layout": "1 device",
        "memory": None,
        "phases": documents,
        "notes": [f"{name}: {text}" for name, text in llm_viewer.DEFECTS.items()],
    }
