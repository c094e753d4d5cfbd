"""Dense attention in C++: checks tensors and keeps the scratch. See ``attention.h`` for the rest.

Float32 on the CPU. Query heads of one KV head are rows of one matrix, so grouped heads read keys and values once.
"""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass

import torch

from ridgeline.kernels.native.attention_tiles import DIRECT_ROWS, Shape, Tiles, default_splits, default_tiles
from ridgeline.kernels.native.build import NativeCallError, check_status, load, permitted_paths
from ridgeline.kernels.native.tensors import address

LOG2_E = math.log2(math.e)

TRANSFORMS = ("online_softmax", "unified_softmax", "sigmoid")
MASKS = ("compare", "master")

UNIFIED_RANGE = (-80.0, 100.0)
"""Powers of two between which a row's sum of 2^(score - phi) must lie, else it is computed again with its true maximum.

Weights below 2^-126 are lost. The sum is at least the largest weight and at most S times that, so above 2^-80 what is
lost is below S 2^-46 of it; below 2^100 neither a weight nor the sum overflows, and products with values have 2^28 left.
"""


class _Call(ctypes.Structure):
    """AttentionCall of attention.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out")),
        *((name, ctypes.c_int64 * 3) for name in ("q_strides", "out_strides", "k_strides", "v_strides")),
        *((name, ctypes.c_int64) for name in ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim")),
        ("kv_lengths", ctypes.c_void_p),
        ("block_table", ctypes.c_void_p),
        ("table_width", ctypes.c_int64),
        ("page", ctypes.c_int64),
        ("pages", ctypes.c_int64),
        ("tree", ctypes.c_void_p),
        ("tree_nodes", ctypes.c_int64),
        ("window", ctypes.c_int64),
        ("master", ctypes.c_void_p),
        ("master_size", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in ("rows", "outer", "inner", "splits", "direct_rows")),
        *((name, ctypes.c_float) for name in ("scale", "bias", "phi", "low", "high")),
        *((name, ctypes.c_int32) for name in ("causal", "transform", "mask_source", "path", "threads")),
        ("scratch", ctypes.c_void_p),
        ("recomputed", ctypes.c_void_p),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("attention")
    library.attention_path.argtypes = [ctypes.c_int32, ctypes.c_void_p]
    library.attention_path.restype = ctypes.c_char_p
    library.attention_scratch.argtypes = [ctypes.c_void_p]
    library.attention_scratch.restype = ctypes.c_int64
    library.attention_master_mask.argtypes = [ctypes.c_int64, ctypes.c_void_p]
    library.attention_master_mask.restype = None
    library.attention_run.argtypes = [ctypes.c_void_p]
    library.attention_run.restype = check_status
    return library


@dataclass(frozen=True)
class Blocking:
    """Registers of a path: ``rows`` x ``columns`` sums of a product, and how many such strips share a panel's read."""

    number: int
    rows: int
    columns: int
    group: int


@functools.cache
def _paths() -> dict[str, Blocking]:
    """Available paths, best first."""
    found: dict[str, Blocking] = {}
    shape = (ctypes.c_int32 * 3)()
    index = 0
    while (name := _library().attention_path(index, ctypes.byref(shape))) is not None:
        if name:
            found[name.decode()] = Blocking(index, *shape)
        index += 1
    return found


def attention_paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first, of avx512, avx2, portable; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return permitted_paths(tuple(_paths()))


def blocking(path: str | None = None) -> Blocking:
    """The register blocking of a path; of the best one where none is named. Raises NativeCallError."""
    name = path or attention_paths()[0]
    if name not in _paths():
        raise NativeCallError(f"no path {name!r} on this CPU: one of {', '.join(_paths())}")
    return _paths()[name]


def master_mask(size: int) -> torch.Tensor:
    """The master mask of FastAttention's tiling-mask: int32[2 m, 2 m], -1 where column <= row, else 0."""
    mask = torch.empty(2 * size, 2 * size, dtype=torch.int32)
    _library().attention_master_mask(size, mask.data_ptr())
    return mask


def mask_slice(master: torch.Tensor, first_row: int, first_key: int, rows: int, keys: int) -> torch.Tensor:
    """bool[rows, keys] of the causal block whose first row sees keys up to ``first_row``: a view into ``master``.

    ``master`` is of size m >= rows, keys. The block must touch the diagonal: |first_row - first_key| < m; any other is
    all seen or all hidden.
    """
    m = len(master) // 2
    down, right = max(0, first_row - first_key), max(0, first_key - first_row)
    if max(down, right) >= m or max(rows, keys) > m:
        raise NativeCallError(f"no slice at ({first_row}, {first_key}) of {rows} x {keys} in a master mask of {m}")
    return master[down : down + rows, right : right + keys] != 0


def tree_words(tree: torch.Tensor) -> torch.Tensor:
    """int64[T, ceil(nodes / 64)] of bool[T, nodes]: bit j % 64 of word j / 64 says whether the query sees node j."""
    queries, nodes = tree.shape
    padded = torch.zeros(queries, -(-nodes // 64) * 64, dtype=torch.int64)
    padded[:, :nodes] = tree
    bits = torch.ones(64, dtype=torch.int64) << torch.arange(64)
    return (padded.view(queries, -1, 64) * bits).sum(dim=2)  # bit 63 is the sign; each bit is added once


@dataclass(frozen=True)
class Pages:
    """Keys and values in pages of ``size`` tokens: tensors [pages, kv_heads, size, d], or with ``heads_inside``
    [pages, size, kv_heads, d]."""

    size: int
    heads_inside: bool = False


class NativeAttention:
    """One prepared attention: ``kernel(q, k, v, out)`` computes it, on tensors of the prepared shape at any address."""

    def __init__(
        self,
        shape: Shape,
        *,
        transform: str = "online_softmax",
        causal: bool = False,
        window: int | None = None,
        tree: torch.Tensor | None = None,
        pages: Pages | None = None,
        bias: float = 0.0,
        phi: float = 0.0,
        unified_range: tuple[float, float] = UNIFIED_RANGE,
        mask: str = "compare",
        tiles: Tiles | None = None,
        splits: int | None = None,
        direct_rows: int = DIRECT_ROWS,
        threads: int = 1,
        path: str | None = None,
    ) -> None:
        """Chooses what is not given and allocates the scratch.

        Args:
            transform: ``online_softmax``, ``unified_softmax`` (one maximum ``phi`` for all rows, FlashDecoding++) or
                ``sigmoid``.
            causal: query t sees keys up to t + (keys of its sequence) - q_length.
            window: keys that a query sees at most on either side of its position, its own included.
            tree: bool[q_length, nodes]: which of the last ``nodes`` keys each query sees; it sees all before them.
            pages: where keys and values lie in pages; calls then take a ``block_table``.
            bias: added to the scaled scores, for ``sigmoid``.
            phi: in natural units of the scaled scores; see :func:`calibrate`.
            unified_range: see UNIFIED_RANGE.
            mask: where causal masks come from: ``compare`` key numbers, or slices of the ``master`` mask.
            tiles, splits: see :func:`default_tiles` and :func:`default_splits`.
            direct_rows: see DIRECT_ROWS.

        Raises:
            NativeCallError: for a choice that is none. NativeBuildError where nothing can be compiled.
        """
        self.shape, self.pages = shape, pages
        registers = blocking(path)
        if transform not in TRANSFORMS:
            raise NativeCallError(f"transform must be one of {', '.join(TRANSFORMS)}, not {transform!r}")
        if mask not in MASKS:
            raise NativeCallError(f"mask must be one of {', '.join(MASKS)}, not {mask!r}")
        sizes = (shape.batch, shape.q_heads, shape.kv_heads, shape.q_length, shape.kv_length, shape.head_dim, threads)
        if min(sizes) < 1 or shape.q_heads % shape.kv_heads or max(sizes) >= 2**31:
            raise NativeCallError(f"no attention has sizes {shape} on {threads} threads")
        self.tiles = tiles or default_tiles(shape, threads)
        self.tiles.check(registers.columns)
        blocks = shape.batch * shape.kv_heads * -(-shape.rows // self.tiles.rows)
        self.splits = splits or default_splits(blocks, shape.kv_length, self.tiles.inner, threads)
        if not 1 <= self.splits <= 4096:
            raise NativeCallError(f"splits must be 1 to 4096, not {self.splits}")
        self._run = _library().attention_run
        self._kept: list[torch.Tensor] = []  # what the call points to
        self._recomputed = torch.zeros(1, dtype=torch.int64)
        self._call = _Call(
            batch=shape.batch,
            q_heads=shape.q_heads,
            kv_heads=shape.kv_heads,
            q_length=shape.q_length,
            kv_length=shape.kv_length,
            head_dim=shape.head_dim,
            window=window or 0,
            rows=self.tiles.rows,
            outer=self.tiles.outer,
            inner=self.tiles.inner,
            splits=self.splits,
            direct_rows=direct_rows,
            scale=LOG2_E / math.sqrt(shape.head_dim),
            bias=bias * LOG2_E,
            phi=phi * LOG2_E,
            low=unified_range[0],
            high=unified_range[1],
            causal=causal,
            transform=TRANSFORMS.index(transform),
            mask_source=MASKS.index(mask),
            path=registers.number,
            threads=threads,
            recomputed=self._recomputed.data_ptr(),
        )
        self._set_strides()
        if mask == "master":
            size = -(-self.tiles.inner // 16) * 16
            self._call.master, self._call.master_size = self._keep(master_mask(size)), size
        if tree is not None:
            if tree.dtype is not torch.bool or tree.shape[0] != shape.q_length or tree.shape[1] > shape.kv_length:
                raise NativeCallError(
                    f"tree must be bool[{shape.q_length}, nodes] with at most {shape.kv_length} nodes, "
                    f"not {tree.dtype}{list(tree.shape)}"
                )
            self._call.tree, self._call.tree_nodes = self._keep(tree_words(tree)), tree.shape[1]
        scratch_bytes = _library().attention_scratch(ctypes.byref(self._call))
        if scratch_bytes < 0:
            raise NativeCallError(f"no attention {shape} with {self.tiles} and {self.splits} splits")
        self._call.scratch = self._keep(torch.zeros(scratch_bytes, dtype=torch.int8))

    def _keep(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _set_strides(self) -> None:
        shape, d = self.shape, self.shape.head_dim
        self._q_shape = (shape.batch, shape.q_heads, shape.q_length, d)
        self._call.q_strides[:] = self._call.out_strides[:] = (
            shape.q_heads * shape.q_length * d,
            shape.q_length * d,
            d,
        )
        self._kv_shape = (shape.batch, shape.kv_heads, shape.kv_length, d)
        strides = (shape.kv_heads * shape.kv_length * d, shape.kv_length * d, d)
        if self.pages is not None:
            heads, size = shape.kv_heads, self.pages.size
            inside = self.pages.heads_inside
            self._kv_shape = (-1, size, heads, d) if inside else (-1, heads, size, d)
            strides = (heads * size * d, d, heads * d) if inside else (heads * size * d, size * d, d)
            self._call.page = size
        self._call.k_strides[:] = self._call.v_strides[:] = strides

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        *,
        kv_lengths: torch.Tensor | None = None,
        block_table: torch.Tensor | None = None,
    ) -> None:
        """Fills ``out`` [batch, q_heads, q_length, d] from ``q`` of that shape and ``k``, ``v`` [batch, kv_heads,
        kv_length, d] (or pages), contiguous float32.

        Args:
            kv_lengths: int32[batch]: keys of each sequence, at most ``kv_length``; the mask is aligned to its last.
            block_table: int32[batch, width]: pages of each sequence in order; those that its keys occupy are looked at.

        Raises:
            NativeCallError: for tensors that are not that, lengths or pages out of range, or too many threads.
        """
        call = self._call
        call.q = address(q, "q", torch.float32, self._q_shape)
        kv_shape = self._kv_shape
        if self.pages is not None:
            call.pages = len(k)
            kv_shape = (len(k), *kv_shape[1:])
        call.k = address(k, "k", torch.float32, kv_shape)
        call.v = address(v, "v", torch.float32, kv_shape)
        call.out = address(out, "out", torch.float32, self._q_shape)
        call.kv_lengths = (
            None if kv_lengths is None else address(kv_lengths, "kv_lengths", torch.int32, (self.shape.batch,))
        )
        if (block_table is None) != (self.pages is None):
            raise NativeCallError("a block_table goes with pages, and pages with a block_table")
        if block_table is not None:
            width = block_table.shape[-1]
            call.block_table = address(block_table, "block_table", torch.int32, (self.shape.batch, width))
            call.table_width = width
        self._run(ctypes.byref(call))

    @property
    def recomputed_rows(self) -> int:
        """Rows that the last call computed again with their true maximum: out of range, or not finite."""
        return int(self._recomputed)


def calibrate(q: torch.Tensor, k: torch.Tensor) -> tuple[float, float, float]:
    """(phi, least, most) of sampled queries [n, d] and keys [m, d] of one head, in units of the scaled scores.

    phi is the middle of the rows' maxima, which range from ``least`` to ``most``: 2^(score - phi) of a like row is in
    float32's range where its maximum is within 55 (2^80) below and 69 (2^100) above (FlashDecoding++, section 3, where
    phi and the range are found from the model's own scores).
    """
    maxima = (q.double() @ k.double().T / math.sqrt(q.shape[-1])).amax(dim=1)
    least, most = float(maxima.min()), float(maxima.max())
    return (least + most) / 2.0, least, most
