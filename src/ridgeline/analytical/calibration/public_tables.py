"""Published kernel times as columns: the Parquet tables of the ``data`` extra, read by path.

``aiconfigurator-core`` (Apache-2.0) is a data wheel to us: its package is never imported. Tables lie under
``systems/data/<system>/<family>/<backend>/<version>/<operator>_perf.parquet``; times are in milliseconds, power in watts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

DISTRIBUTION = "aiconfigurator-core"
LICENCE = "Apache-2.0"
PATH_VARIABLE = "RIDGELINE_PUBLIC_TABLES"
"""Folder of the unpacked wheel (it holds ``aiconfigurator_core/``), where the extra is not installed."""

SYSTEMS: Mapping[str, str] = {
    "a100_sxm": "nvidia-a100-sxm4-80gb",
    "h100_sxm": "nvidia-h100-sxm5-80gb",
    "h200_sxm": "nvidia-h200-sxm-141gb",
    "b200_sxm": "nvidia-b200-sxm-180gb",
    "b300_sxm": "nvidia-b300-sxm",
    "gb200": "nvidia-gb200-nvl72",
    "gb300": "nvidia-gb300-nvl72",
    "l40s": "nvidia-l40s",
    "rtx_pro_6000_server": "nvidia-rtx-pro-6000-blackwell-server",
    "b60": "intel-arc-pro-b60",
}
"""The tables' system to the catalogue's device."""

FILES: Mapping[str, tuple[str, str]] = {
    "gemm": ("gemm", "gemm_perf.parquet"),
    "attention prefill": ("attention", "context_attention_perf.parquet"),
    "attention decode": ("attention", "generation_attention_perf.parquet"),
}
"""Our family of kernels to the tables' folder and file."""

CLEAN: Mapping[tuple[str, str], str] = {
    **{(s, "vllm"): "0.24.0" for s in SYSTEMS},
    **{(s, "sglang"): "0.5.14" for s in SYSTEMS},
    **{(s, "trtllm"): "1.3.0rc20" for s in SYSTEMS},
    ("a100_sxm", "vllm"): "0.14.0",
    ("a100_sxm", "sglang"): "0.5.10",
    ("b60", "vllm"): "0.26.0",
}
"""(system, backend) to the version whose tables were found clean (the A100 has no clean TensorRT-LLM table)."""

BACKENDS = ("vllm", "sglang", "trtllm")
"""Software whose kernels the tables time."""

PRECISIONS: Mapping[str, tuple[str, str]] = {
    "bfloat16": ("bfloat16", "bfloat16"),
    "fp8": ("float8_e4m3fn", "float8_e4m3fn"),
    "fp8_block": ("float8_e4m3fn", "float8_e4m3fn"),
    "nvfp4": ("float4_e2m1fn", "float4_e2m1fn"),
    "int8_wo": ("bfloat16", "int8"),
    "int4_wo": ("bfloat16", "int4"),
}
"""The tables' name of a precision to ours: of the activations, and of the weights or the KV cache."""


class PublicTableError(ValueError):
    """Published tables that are missing or not as expected. One line."""


@dataclass(frozen=True, kw_only=True)
class PublicTable:
    """One table: one device, one family, one software version."""

    system: str
    family: str
    backend: str
    version: str
    path: Path

    @property
    def device_id(self) -> str:
        """Id of our catalogue; empty for a system that we do not know."""
        return SYSTEMS.get(self.system, "")

    @property
    def is_clean(self) -> bool:
        """Whether it is among the tables that were found clean; older versions are looked at by the gate only."""
        return CLEAN.get((self.system, self.backend)) == self.version and (self.system, self.backend) != (
            "a100_sxm",
            "trtllm",
        )

    @property
    def relative(self) -> str:
        """Its path inside the source."""
        return str(Path(*self.path.parts[-5:]))


def data_root() -> Path | None:
    """The folder ``systems`` of the published tables, or ``None`` where they are not installed."""
    folder = os.environ.get(PATH_VARIABLE)
    if folder:
        root = Path(folder) / "aiconfigurator_core" / "systems"
        return root if root.is_dir() else None
    try:
        files = metadata.distribution(DISTRIBUTION).files or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "silicon_sample.csv":
            return Path(str(file.locate())).parent
    return None


def require_data_root() -> Path:
    """The folder of the published tables.

    Raises:
        PublicTableError: where they are not installed; says how to.
    """
    root = data_root()
    if root is None:
        raise PublicTableError(
            f"the published tables are not here: pip install 'ridgeline[data]' ({DISTRIBUTION} 0.12.0, 82 MB), or name "
            f"the folder of an unpacked wheel in {PATH_VARIABLE}"
        )
    return root


def source_version(root: Path) -> str:
    """Version of the distribution whose tables lie under ``root``; empty where nothing tells."""
    for info in root.parent.parent.glob("aiconfigurator_core-*.dist-info"):
        return info.name.removeprefix("aiconfigurator_core-").removesuffix(".dist-info")
    return ""


def public_tables(
    root: Path, *, family: str | None = None, system: str | None = None, backend: str | None = None, clean: bool = False
) -> list[PublicTable]:
    """The tables of the families in :data:`FILES`, in the order of their paths.

    Args:
        root: from :func:`data_root`.
        family, system, backend: only these; all without.
        clean: only the versions of :data:`CLEAN`.

    Raises:
        PublicTableError: for a family or a system that is not there.
    """
    if family is not None and family not in FILES:
        raise PublicTableError(f"no family {family!r}: one of {', '.join(FILES)}")
    there = sorted(p.name for p in (root / "data").iterdir() if p.is_dir()) if (root / "data").is_dir() else []
    if system is not None and system not in there:
        raise PublicTableError(f"no system {system!r}: one of {', '.join(there)}")
    found = []
    for name, (folder, file) in FILES.items():
        if family not in (None, name):
            continue
        for path in sorted((root / "data").glob(f"{system or '*'}/{folder}/{backend or '*'}/*/{file}")):
            *_, of_system, _, of_backend, of_version, _ = path.parts
            table = PublicTable(system=of_system, family=name, backend=of_backend, version=of_version, path=path)
            if not clean or table.is_clean:
                found.append(table)
    return found


def read_table(table: PublicTable) -> dict[str, Any]:
    """The columns of a table, in our names and units.

    GEMM: ``m, n, k``; attention: ``batch, q_heads, kv_heads, q_length, kv_length, head_dim, window`` (0: none). Both:
    ``precision`` and ``stored`` (object columns, of activations and of weights or KV cache; the source's word where it is
    none of ours), ``kernel``, ``seconds``, ``power_w`` (NaN where there is none), ``version_agrees``, ``row``.

    Raises:
        PublicTableError: for a file that cannot be read or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        raw = pq.read_table(table.path)
    except (OSError, pa.ArrowException) as error:
        raise PublicTableError(f"{table.path}: {str(error).splitlines()[0]}") from None

    def numbers(name: str, default: float | None = None) -> Any:
        if name not in raw.column_names:
            if default is not None:
                return np.full(raw.num_rows, default)
            raise PublicTableError(f"{table.path}: no column {name!r}")
        return raw.column(name).cast("float64").to_numpy()

    def words(name: str, default: str = "") -> Any:
        if name not in raw.column_names:
            return np.full(raw.num_rows, default, dtype=object)
        # Through the dictionary: a few words over many rows.
        column = raw.column(name).combine_chunks().dictionary_encode()
        column = column if isinstance(column, pa.DictionaryArray) else column.chunk(0)
        return np.array([str(v) for v in column.dictionary.to_pylist()], dtype=object)[column.indices.to_numpy()]

    if raw.num_rows == 0:
        raise PublicTableError(f"{table.path}: no rows")
    columns: dict[str, Any] = {
        "seconds": numbers("latency") * 1e-3,
        "power_w": np.where((p := numbers("power", 0.0)) > 0.0, p, np.nan),
        "kernel": words("kernel_source"),
        "version_agrees": words("version", table.version) == table.version,
        "row": np.arange(raw.num_rows),
    }
    if table.family == "gemm":
        columns |= {name: numbers(name) for name in ("m", "n", "k")}
        said = words("gemm_dtype")
        activations = stored = said
    else:
        decode = table.family == "attention decode"
        isl, step = numbers("isl"), numbers("step", 0.0)
        columns |= {
            "batch": numbers("batch_size"),
            "q_heads": numbers("num_heads"),
            "kv_heads": numbers("num_key_value_heads"),
            "q_length": np.ones(raw.num_rows) if decode else isl,
            "kv_length": isl + step,
            "head_dim": numbers("head_dim", 128.0),
            "window": numbers("window_size", 0.0),
        }
        columns["kv_heads"] = np.where(columns["kv_heads"] == 0.0, columns["q_heads"], columns["kv_heads"])
        activations, stored = words("attn_dtype"), words("kv_cache_dtype")
    columns["precision"] = np.array([PRECISIONS.get(w, (w, w))[0] for w in activations], dtype=object)
    columns["stored"] = np.array([PRECISIONS.get(w, (w, w))[1] for w in stored], dtype=object)
    columns["format"] = activations if table.family == "gemm" else stored
    return columns
