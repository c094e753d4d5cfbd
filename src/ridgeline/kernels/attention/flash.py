"""The Triton kernels of exact attention: one tile loop over the keys, with score transform, mask and layout as plug-ins.

One program takes a tile of query rows through all its keys, or through one of several parts of them (split-KV,
FlashDecoding, Dao et al. 2023), whose results a second kernel combines. Keys lie in one piece or in pages; lengths may
be ragged. Which implementation launches what is in the ``triton_*`` files of this folder, of ``paged_attention`` and
of ``tree_attention``; the host's side is :mod:`ridgeline.kernels.attention.launch`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load(pointers, mask, NEEDED: tl.constexpr):
    """A tile, with zeros where the mask is false; without looking at the mask where it is not needed."""
    if NEEDED:
        tile = tl.load(pointers, mask=mask, other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.jit
def attend(
    q,  # [BLOCK_M, BLOCK_D]
    k,  # pointers to K[key 0 .. BLOCK_N - 1] transposed, [BLOCK_D, BLOCK_N]; in pages to row 0 of page 0, [BLOCK_D, 1]
    v,  # pointers to V[key 0 .. BLOCK_N - 1], [BLOCK_N, BLOCK_D]; in pages to row 0 of page 0, [1, BLOCK_D]; with BULK
    # descriptors of the head's K and V, [S, D]
    table,  # pointer to the sequence's row of the block table, where there are pages
    page_stride,  # elements between two pages
    rows,  # what SEES knows of the rows
    in_head,  # [BLOCK_D]
    accumulator,
    maximum,
    total,
    begin,
    end,
    scale,
    bias,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    BULK: tl.constexpr,
    TRANSFORM: tl.constexpr,
    SEES: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """Take in keys [begin, end). With MASKED, each row sees those that SEES says; without, all of them."""
    key = tl.arange(0, BLOCK_N)
    NEEDED: tl.constexpr = MASKED or q.shape[1] != D  # q is padded to a power of two
    for start in range(begin, end, BLOCK_N):
        in_keys = key < end - start
        if BULK:  # what lies behind the last key comes as zeros
            k_here, v_here = k, v
        elif PAGE == 0:
            offset = tl.cast(start, tl.int64) * D
            k_here, v_here = k + offset, v + offset
        else:
            slot = start + key
            page = load(table + slot // PAGE, in_keys, MASKED)
            place = page.to(tl.int64) * page_stride + slot % PAGE * D
            k_here, v_here = k + place[None, :], v + place[:, None]
        if BULK:
            k_tile = tl.trans(k_here.load([start, 0]))
        else:
            k_tile = load(k_here, in_head[:, None] & in_keys[None, :], NEEDED).to(q.dtype)
        scores = tl.dot(q, k_tile, input_precision=INPUT_PRECISION) * scale
        if MASKED:
            scores = tl.where(SEES(start + key, rows), scores, float("-inf"))
        weights, accumulator, maximum, total = TRANSFORM(scores, accumulator, maximum, total, bias)
        if BULK:
            v_tile = v_here.load([start, 0])
        else:
            v_tile = load(v_here, in_keys[:, None] & in_head[None, :], NEEDED).to(q.dtype)
        accumulator = tl.dot(weights.to(q.dtype), v_tile, accumulator, input_precision=INPUT_PRECISION)
    return accumulator, maximum, total


@triton.jit
def key_range(first, last, S, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BLOCK_N: tl.constexpr):
    """Keys that queries at positions ``first`` to ``last`` see: (begin, all_from, all_to, end).

    Some row sees a key of [begin, end), and all rows see those of [all_from, all_to). All but ``end`` are at the
    edge of a block of BLOCK_N. Masks are aligned bottom-right.
    """
    begin, all_from = 0, 0
    if CAUSAL:
        all_to = tl.maximum(first + 1, 0) // BLOCK_N * BLOCK_N
        end = tl.maximum(last + 1, 0)
    elif WINDOW > 0:
        all_to = tl.maximum(tl.minimum(first + WINDOW, S), 0) // BLOCK_N * BLOCK_N
        end = tl.maximum(tl.minimum(last + WINDOW, S), 0)
    else:
        all_to = S // BLOCK_N * BLOCK_N
        end = S
    if WINDOW > 0:
        begin = tl.maximum(first - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
        all_from = tl.cdiv(tl.maximum(last - WINDOW + 1, 0), BLOCK_N) * BLOCK_N
        all_from = tl.maximum(tl.minimum(all_from, all_to), begin)
        all_to = tl.maximum(all_to, all_from)
    return begin, all_from, all_to, end


@triton.jit
def flash_kernel(
    q_ptr,  # [batch, q_heads, T, D]
    k_ptr,  # [batch, q_heads / GROUP, S, D]; in pages [pages, KV_HEADS, PAGE, D]
    v_ptr,  # as K
    out_ptr,  # [batch, q_heads, T, D]; None where parts are written
    part_ptr,  # float32 [batch, q_heads, T, SPLITS, D] of parts that are combined afterwards, or None
    sum_ptr,  # float32 [batch, q_heads, T, SPLITS], or None
    flag_ptr,  # int8 [batch, q_heads, T]: rows that left the range of the unified maximum, or None
    lengths_ptr,  # int32 [batch]: S of each sequence, or None
    table_ptr,  # int32 [batch, table_width]: pages of each sequence, or None
    tree_ptr,  # int32 [T, ceil(T / 32)]: bits of the ancestors of each query, or None
    T,
    S,
    table_width,
    scale,  # of the scores, times log2(e)
    bias,  # in units of log2
    least,  # range of a row's sum, outside of which it is flagged
    most,
    D: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of one KV head
    FOLD: tl.constexpr,  # query heads in one M tile: 1 or GROUP
    KV_HEADS: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,  # keys that a query sees at most, on either side if not causal; 0 for no such limit
    PAGE: tl.constexpr,  # tokens in a page; 0 where keys lie in one piece
    BULK: tl.constexpr,  # tiles of K and V come by descriptor (TMA on sm_90 and later) instead of by pointers
    SPLITS: tl.constexpr,  # parts that the keys of a tile are split in
    FLAGS: tl.constexpr,  # "write", "read" (compute flagged rows alone), or ""
    TRANSFORM: tl.constexpr,
    WHOLE: tl.constexpr,  # TRANSFORM of tiles that every row sees whole
    FINISH: tl.constexpr,
    PART: tl.constexpr,
    SEES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """Row r of the tiles of one program column is query r // FOLD of head r % FOLD: folded heads share the KV reads."""
    rows = T * FOLD
    tiles = tl.cdiv(rows, BLOCK_M)
    heads = (tl.program_id(0) // tiles).to(tl.int64)  # which FOLD heads, over the batch
    # The last tiles of a causal mask are the longest: start them first.
    tile = tiles - 1 - tl.program_id(0) % tiles
    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    query = row // FOLD
    d = tl.arange(0, BLOCK_D)
    in_row, in_head = row < rows, d < D
    out_row = (heads * FOLD + row % FOLD) * T + query
    q_offset = out_row[:, None] * D + d[None, :]
    q = tl.load(q_ptr + q_offset, mask=in_row[:, None] & in_head[None, :], other=0.0)

    kv_head = heads * FOLD // GROUP  # over the batch
    if lengths_ptr is not None:
        S = tl.load(lengths_ptr + kv_head // KV_HEADS)
    if BULK:
        table, page_stride = 0, 0
        k = tl.make_tensor_descriptor(k_ptr + kv_head * S * D, [S, D], [D, 1], [BLOCK_N, BLOCK_D])
        v = tl.make_tensor_descriptor(v_ptr + kv_head * S * D, [S, D], [D, 1], [BLOCK_N, BLOCK_D])
    elif PAGE == 0:
        table, page_stride = 0, 0
        k = k_ptr + kv_head * S * D + tl.arange(0, BLOCK_N)[None, :] * D + d[:, None]
        v = v_ptr + kv_head * S * D + tl.arange(0, BLOCK_N)[:, None] * D + d[None, :]
    else:
        table, page_stride = table_ptr + kv_head // KV_HEADS * table_width, KV_HEADS * PAGE * D
        k = k_ptr + kv_head % KV_HEADS * (PAGE * D) + d[:, None]
        v = v_ptr + kv_head % KV_HEADS * (PAGE * D) + d[None, :]

    first = tile * BLOCK_M // FOLD + (S - T)
    last = tl.minimum(tile * BLOCK_M + BLOCK_M - 1, rows - 1) // FOLD + (S - T)
    if tree_ptr is not None:
        begin, all_from, all_to, end = 0, 0, (S - T) // BLOCK_N * BLOCK_N, S
        # Rows that only fill the tile look at the bits of the last query.
        facts = (tree_ptr + tl.minimum(query, T - 1) * tl.cdiv(T, 32), S - T, T)
    else:
        begin, all_from, all_to, end = key_range(first, last, S, CAUSAL, WINDOW, BLOCK_N)
        position = query + (S - T)
        if CAUSAL:
            last_key = position
        elif WINDOW > 0:
            last_key = tl.minimum(position + (WINDOW - 1), S - 1)
        else:
            last_key = tl.full((BLOCK_M,), S - 1, dtype=tl.int32)
        facts = (last_key, position - (WINDOW - 1))  # type: ignore[assignment]  # each SEES takes its own
    if SPLITS > 1:
        part = tl.cdiv(tl.cdiv(end - begin, BLOCK_N), SPLITS) * BLOCK_N
        begin += tl.program_id(1) * part
        end = tl.minimum(begin + part, end)
        all_from = tl.minimum(tl.maximum(all_from, begin), end)
        all_to = tl.minimum(tl.maximum(all_to, all_from), end)
    wanted = in_row
    if FLAGS == "read":
        wanted = tl.load(flag_ptr + out_row, mask=in_row, other=0) != 0
        some = tl.max(wanted.to(tl.int32), axis=0)  # as a rule 0: then no key is looked at
        begin, all_from, all_to, end = begin * some, all_from * some, all_to * some, end * some

    accumulator = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    maximum = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    if WINDOW > 0:
        accumulator, maximum, total = attend(
            q, k, v, table, page_stride, facts, in_head, accumulator, maximum, total, begin, all_from, scale, bias,
            D, PAGE, BULK, TRANSFORM, SEES, True, BLOCK_N, INPUT_PRECISION,
        )  # fmt: skip
        begin = all_from
    accumulator, maximum, total = attend(
        q, k, v, table, page_stride, facts, in_head, accumulator, maximum, total, begin, all_to, scale, bias,
        D, PAGE, BULK, WHOLE, SEES, False, BLOCK_N, INPUT_PRECISION,
    )  # fmt: skip
    accumulator, maximum, total = attend(
        q, k, v, table, page_stride, facts, in_head, accumulator, maximum, total, all_to, end, scale, bias,
        D, PAGE, BULK, TRANSFORM, SEES, True, BLOCK_N, INPUT_PRECISION,
    )  # fmt: skip

    in_tile = wanted[:, None] & in_head[None, :]
    if SPLITS == 1:
        result = FINISH(accumulator, total)
        tl.store(out_ptr + q_offset, result.to(out_ptr.dtype.element_ty), mask=in_tile)
        if FLAGS == "write":
            # Written so that a sum that is not a number is flagged too, and so is one of a row that sees no key.
            tl.store(flag_ptr + out_row, 1 - ((total >= least) & (total <= most)).to(tl.int8), mask=in_row)
    elif PART is None:
        tl.atomic_add(out_ptr + q_offset, FINISH(accumulator, total), mask=in_tile, sem="relaxed")
    else:
        output, sums = PART(accumulator, maximum, total)
        slot = out_row * SPLITS + tl.program_id(1)
        tl.store(part_ptr + slot[:, None] * D + d[None, :], output, mask=in_tile)
        tl.store(sum_ptr + slot, sums, mask=in_row)


@triton.jit
def combine_kernel(
    part_ptr,  # float32 [rows, SPLITS, D]
    sum_ptr,  # float32 [rows, SPLITS]: log2 of the sum of each part's weights, or with UNIFIED the sum itself
    out_ptr,  # [rows, D]
    flag_ptr,  # int8 [rows], or None
    least,
    most,
    D: tl.constexpr,
    SPLITS: tl.constexpr,
    UNIFIED: tl.constexpr,  # parts are numerators and denominators over one maximum; else outputs of their own
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One row: the parts' outputs weighted by their sums, or numerators over denominators. No keys at all gives zeros."""
    row = tl.program_id(0).to(tl.int64)
    split, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    held = split < SPLITS
    sums = tl.load(sum_ptr + row * SPLITS + split, mask=held, other=0.0 if UNIFIED else float("-inf"))
    parts = tl.load(
        part_ptr + (row * SPLITS + split)[:, None] * D + d[None, :], mask=held[:, None] & (d < D)[None, :], other=0.0
    )
    if UNIFIED:
        total = tl.sum(sums, axis=0)
    else:
        largest = tl.max(sums, axis=0)
        weights = tl.exp2(sums - tl.where(largest == float("-inf"), 0.0, largest))
        total = tl.sum(weights, axis=0)
        parts = parts * weights[:, None]
    result = tl.sum(parts, axis=0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out_ptr + row * D + d, result.to(out_ptr.dtype.element_ty), mask=d < D)
    if flag_ptr is not None:
        tl.store(flag_ptr + row, 1 - ((total >= least) & (total <= most)).to(tl.int8))
