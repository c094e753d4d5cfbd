"""Benchmark tables of others: a CSV file with a header, its columns by their usual names, a line number for each row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.operators import attention_work, gemm_work, stream_work
from ridgeline.analytical.operators.stream import ELEMENT_BYTES, STREAM_ARRAYS
from ridgeline.analytical.quantities import BITS, bits
from ridgeline.analytical.work import Work

SECONDS_PER = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIME_NAMES = ("latency", "time", "duration", "runtime", "elapsed", "mean", "median", "min_runtime", "measured")
PRECISION_NAMES = ("precision", "dtype", "gemm_dtype", "attn_dtype", "mla_dtype", "data_type", "type", "quant")
UNIT_NAMES = {"second": "s", "seconds": "s", "sec": "s", "msec": "ms", "usec": "us", "nsec": "ns", "µs": "us"}
PRECISIONS = {
    "fp64": "float64", "f64": "float64", "double": "float64",
    "fp32": "float32", "f32": "float32", "float": "float32",
    "tf32": "tfloat32",
    "fp16": "float16", "f16": "float16", "half": "float16",
    "bf16": "bfloat16",
    "fp8": "float8_e4m3fn", "fp8_e4m3": "float8_e4m3fn", "fp8_block": "float8_e4m3fn", "float8": "float8_e4m3fn",
    "float8_e4m3": "float8_e4m3fn",
    "e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2", "e5m2": "float8_e5m2",
    "fp4": "float4_e2m1fn", "nvfp4": "float4_e2m1fn", "mxfp4": "float4_e2m1fn",
    "i8": "int8", "s8": "int8",
}  # fmt: skip
"""Names that tables use for torch's precisions."""


class AuditError(ValueError):
    """A table that cannot be audited. One line: file, what is missing, what to do."""


@dataclass(frozen=True)
class TableOperator:
    """Which parameters a row of an operator's table has, and the work that they are."""

    required: tuple[str, ...]
    optional: Mapping[str, float | str | bool]
    """Parameter to the value that it has where the table does not say; a string names another parameter."""
    names: Mapping[str, tuple[str, ...]]
    """Parameter to usual names of its column, the parameter's own name aside."""
    work: Callable[[Mapping[str, Any], str], Work]


def _gemm(columns: Mapping[str, Any], precision: str) -> Work:
    if precision == "tfloat32":
        return _gemm(columns, "float32").in_tfloat32()
    one = gemm_work(columns["m"], columns["n"], columns["k"], precision)
    work: Work = one * columns["batch"]
    return work


def _attention(columns: Mapping[str, Any], precision: str) -> Work:
    # A window as long as all queries and keys hides nothing.
    window = np.where(columns["window"] > 0.0, columns["window"], columns["q_length"] + columns["kv_length"])
    full, causal = (
        attention_work(
            columns["batch"],
            columns["q_heads"],
            columns["kv_heads"],
            columns["q_length"],
            columns["kv_length"],
            columns["head_dim"],
            masked,
            precision,
            window=window,
        )
        for masked in (False, True)
    )
    is_causal = columns["causal"] != 0.0
    operations = {key: np.where(is_causal, causal.operations[key], full.operations[key]) for key in full.operations}
    # No kv_precision is that of the queries.
    share = np.where(columns["kv_precision"] > 0.0, columns["kv_precision"] / bits(precision), 1.0)
    read = {**full.read_bytes, "kv": full.read_bytes["kv"] * share}
    return Work(operations, read, full.written_bytes)


def _stream(columns: Mapping[str, Any], precision: str) -> Work:
    """The table says its elements' size itself; it counts in arrays of float32."""
    one = {name: stream_work(name, 1.0, 1.0) for name in STREAM_ARRAYS}
    scale = columns["elements"] * columns["element_bytes"] / ELEMENT_BYTES * columns["passes"]
    moved = np.choose(columns["operation"].astype(int), [float(one[name].bytes) for name in STREAM_ARRAYS])
    return Work(read_bytes={"activations": moved * scale})


OPERATORS: Mapping[str, TableOperator] = {
    "gemm": TableOperator(
        required=("m", "n", "k"),
        optional={"batch": 1.0},
        names={"m": ("rows",), "n": ("cols", "columns"), "k": ("depth", "inner"), "batch": ("b", "batch_size", "l")},
        work=_gemm,
    ),
    "attention": TableOperator(
        required=("batch", "q_heads", "q_length", "kv_length", "head_dim"),
        optional={"kv_heads": "q_heads", "causal": True, "window": 0.0, "kv_precision": 0.0},
        names={
            "batch": ("b", "batch_size", "bs", "bsz", "num_seqs"),
            "q_heads": ("num_heads", "n_heads", "heads", "nheads", "num_q_heads", "num_attention_heads", "h"),
            "kv_heads": ("num_kv_heads", "num_key_value_heads", "n_kv_heads", "heads_kv", "nheads_kv"),
            "q_length": ("q_len", "seqlen_q", "seq_len_q", "query_length", "query_len"),
            "kv_length": (
                "kv_len", "seqlen_k", "seqlen_kv", "seq_len_kv", "context_length", "context_len", "context", "ctx",
                "seqlen", "seq_len", "sequence_length", "isl",
            ),
            "head_dim": ("d", "head_size", "headdim", "dim_head"),
            "causal": ("is_causal",),
            "window": ("window_size", "sliding_window"),
            "kv_precision": ("kv_dtype", "kv_cache_dtype"),
        },
        work=_attention,
    ),
    "stream": TableOperator(
        required=("operation", "elements"),
        optional={"element_bytes": 4.0, "passes": 1.0},
        names={
            "operation": ("function", "kernel", "op"),
            "elements": ("n_elements", "array_size", "length", "n"),
            "element_bytes": ("sizeof", "itemsize"),
            "passes": ("repeats",),
        },
        work=_stream,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class BenchmarkTable:
    """A table as columns; a cell that cannot be read is NaN."""

    operator: TableOperator
    sources: Mapping[str, str]
    """Parameter to the column, or ``= value``, that it was read from."""
    lines: Sequence[int]
    """Line of the file that each row ends at."""
    measured_s: Any
    precisions: Sequence[str]
    """Torch's name for each row; what no name is known for, as it was written."""
    parameters: Mapping[str, Any]
    """float64 columns."""

    @property
    def sizes(self) -> list[str]:
        """Parameters that must be positive."""
        named = (*self.operator.required, *self.operator.optional)
        return [name for name in named if name not in ("operation", "causal", "window", "kv_precision")]


def read_benchmark(
    path: Path,
    operator: str,
    *,
    mapping: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    time_unit: str | None = None,
) -> BenchmarkTable:
    """Read a table of measurements of ``operator``; arguments and errors as those of
    :func:`~ridgeline.analytical.audit_table.audit_table`."""
    if operator not in OPERATORS:
        raise AuditError(f"no audit of operator {operator!r}: one of {', '.join(OPERATORS)}")
    kind = OPERATORS[operator]
    header, cells, lines = _read(path)
    sources = _sources(path, kind, header, mapping or {}, values or {}, operator)
    per_s = SECONDS_PER[_time_unit(path, sources["time"], time_unit)]
    # A value that names a parameter is that parameter's, so those come last.
    parsed: dict[str, Any] = {}
    for name, source in sorted(sources.items(), key=lambda item: item[1].removeprefix("= ") in sources):
        if name != "precision":
            other = source.removeprefix("= ")
            parsed[name] = (
                parsed[other] if other != source and other in parsed else _column(source, header, cells, name)
            )
    for name, default in kind.optional.items():
        if name not in parsed:
            parsed[name] = parsed[default] if isinstance(default, str) else np.full(len(lines), float(default))
    measured_s = parsed.pop("time") * per_s
    if "kv_heads" in parsed:
        # A table may write "no GQA" as zero KV heads.
        parsed["kv_heads"] = np.where(parsed["kv_heads"] == 0.0, parsed["q_heads"], parsed["kv_heads"])
    precisions = _precisions(sources.get("precision", ""), header, cells)
    return BenchmarkTable(kind, sources, lines, measured_s, precisions, parsed)


def _read(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the line that each row ends at."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [(row, reader.line_num) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AuditError(f"{path}: {error}") from None
    if not header or not rows:
        raise AuditError(f"{path}: no rows: a CSV file with a header is needed")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise AuditError(f"{path}: two columns are named {twice!r}")
    return header, [row + [""] * (len(header) - len(row)) for row, _ in rows], [line for _, line in rows]


def _sources(
    path: Path,
    kind: TableOperator,
    header: Sequence[str],
    mapping: Mapping[str, str],
    values: Mapping[str, str],
    operator: str,
) -> dict[str, str]:
    """Parameter to its column, or to ``= value``."""
    known = (*kind.required, *kind.optional, "time", "precision")
    for column, parameter in mapping.items():
        if column not in header:
            raise AuditError(f"{path}: no column {column!r}: it has {', '.join(header)}")
        if parameter not in known:
            raise AuditError(f"{operator} has no parameter {parameter!r}: one of {', '.join(known)}")
    for parameter in values:
        if parameter not in known or parameter == "time":
            raise AuditError(f"{operator} has no parameter {parameter!r} to set: one of {', '.join(known)}")
    found = {parameter: column for column, parameter in mapping.items()}
    found |= {parameter: f"= {value}" for parameter, value in values.items() if parameter not in found}
    usual = {**kind.names, "time": TIME_NAMES, "precision": PRECISION_NAMES}
    free = [column for column in header if column not in mapping]
    for parameter in known:
        if parameter in found:
            continue
        for name in (parameter, *usual.get(parameter, ())):
            matching = [c for c in free if _plain(c) == name or (parameter == "time" and _without_unit(c) == name)]
            if matching:
                found[parameter] = matching[0]
                free.remove(matching[0])
                break
    if operator == "attention" and "kv_length" in found and "q_length" not in found:
        raise AuditError(
            f"{path}: no column says how many queries there are: --set q_length=1 for decode, "
            f"--map COLUMN=q_length, or --set q_length=kv_length for prefill"
        )
    for parameter in (*kind.required, "time", *(("precision",) if operator != "stream" else ())):
        if parameter not in found:
            raise AuditError(
                f"{path}: no column for {parameter} among {', '.join(header)}: --map COLUMN={parameter}"
                + ("" if parameter == "time" else f" or --set {parameter}=VALUE")
            )
    return found


def _plain(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def _split_unit(column: str) -> tuple[str, str]:
    """A column's name without its unit, and the unit or an empty string: ``latency (us)``, ``time_ms``."""
    plain = _plain(column).replace("[", "(").replace("]", ")")
    if plain.endswith(")") and "(" in plain:
        name, _, unit = plain[:-1].rpartition("(")
        name = name.rstrip("_")
    else:
        name, _, unit = plain.rpartition("_")
    unit = UNIT_NAMES.get(unit, unit)
    return (name, unit) if unit in SECONDS_PER else (plain, "")


def _without_unit(column: str) -> str:
    return _split_unit(column)[0]


def _time_unit(path: Path, column: str, asked: str | None) -> str:
    unit = asked or _split_unit(column)[1]
    if not unit:
        raise AuditError(f"{path}: column {column!r} does not say its unit: --time-unit us, ms, s or ns")
    if unit not in SECONDS_PER:
        raise AuditError(f"unknown unit of time {unit!r}: one of {', '.join(SECONDS_PER)}")
    return unit


def _column(source: str, header: Sequence[str], cells: Sequence[Sequence[str]], parameter: str) -> Any:
    """A parameter as a float64 column, NaN where a cell is no number."""
    if source.startswith("= "):
        texts = [source[2:]] * len(cells)
    else:
        index = header.index(source)
        texts = [row[index] for row in cells]
    return np.array([_number(text.strip(), parameter) for text in texts], dtype=np.float64)


def _number(text: str, parameter: str) -> float:
    if parameter == "operation":
        names = list(STREAM_ARRAYS)
        return float(names.index(text.lower())) if text.lower() in names else float("nan")
    if parameter == "kv_precision":
        name = _precision(text)
        return float(BITS[name]) if name in BITS else float("nan")
    if parameter == "causal":
        return {"true": 1.0, "1": 1.0, "yes": 1.0, "false": 0.0, "0": 0.0, "no": 0.0}.get(text.lower(), float("nan"))
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _precisions(source: str, header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    if not source:
        return ["float32"] * len(cells)
    index = -1 if source.startswith("= ") else header.index(source)
    return [_precision(source[2:] if index < 0 else row[index]) for row in cells]


def _precision(text: str) -> str:
    """Torch's name of a precision, where we know it."""
    plain = text.strip().lower().removeprefix("torch.")
    return PRECISIONS.get(plain, plain)
