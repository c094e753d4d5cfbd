"""``line_selector``: which columns and diagonals of the score matrix matter, judged by the last queries (MInference)."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.analytical.operators.attention_selector import line_selector_work
from ridgeline.analytical.operators.block_sparse_attention import LOCAL_DIAGONALS, SINK_COLUMNS
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work


@problem("line_selector")
@dataclass(frozen=True, kw_only=True)
class LineSelector(Problem):
    """int32[batch, q_heads, columns + diagonals]: the columns that are chosen, ascending, then the distances.

    The ``last_queries`` last queries of each head attend to all keys that they see. The weights are added up by column and
    by distance from query to key; the largest sums are chosen, the first 30 columns and distances 0 to 99 whatever
    theirs (Jiang et al. 2024, algorithm 2; ``vertical_and_slash_kernel`` of microsoft/MInference, read at
    0647e2c).
    """

    batch: int
    q_heads: int
    kv_heads: int
    length: int
    head_dim: int
    columns: int
    diagonals: int
    last_queries: int = 64
    precision: str = "float32"

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.last_queries > self.length:
            raise ProblemError("last_queries", f"{self.last_queries} of {self.length} tokens cannot be")
        for name, always in (("columns", SINK_COLUMNS), ("diagonals", LOCAL_DIAGONALS)):
            least, most = min(always, self.length), max(self.length - self.last_queries, always)
            if not least <= getattr(self, name) <= most:
                raise ProblemError(
                    name, f"must be {least} (those always chosen) to {most} (those that all of the queries see)"
                )

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        sums = line_selector_work(
            self.batch, self.q_heads, self.kv_heads, self.length, self.last_queries, self.head_dim, self.precision
        )
        chosen = 1.0 * self.batch * self.q_heads * (self.columns + self.diagonals)
        return sums + Work(written_bytes={"index": bytes_of(chosen, "int32")}, launches=0)

    def footprint_bytes(self) -> float:
        """All queries lie in memory; the last are read."""
        unread = 1.0 * self.batch * self.q_heads * (self.length - self.last_queries) * self.head_dim
        return float(self.work().bytes) + float(bytes_of(unread, self.precision))

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        chosen = f"{self.columns} columns {self.diagonals} diagonals"
        return f"B{self.batch} {heads} S{self.length} d{self.head_dim} {chosen} by {self.last_queries} {self.precision}"
