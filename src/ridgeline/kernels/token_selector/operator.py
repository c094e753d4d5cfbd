"""``label_channel_selector``, ``centroid_selector`` and ``codebook_selector``: inputs, references and tolerances."""

from __future__ import annotations

import math
from typing import Any

import torch

from ridgeline.analytical.operators import CentroidSelector, CodebookSelector, LabelChannelSelector
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator
from ridgeline.kernels.token_selector.centroids import calibrated_threshold, cluster_logits, kept_tokens, log_scores
from ridgeline.kernels.token_selector.lists import lists_of_top_k

CALIBRATION_QUERIES = 64

LISTS = Tolerance(
    5e-3, "scores closer than a rounding to float32 may change places: a token for its neighbour at a list's edge"
)


def _rows(problem: Any, rows: torch.Tensor | None) -> torch.Tensor:
    return torch.arange(problem.batch * problem.q_heads) if rows is None else rows.long()


def _shaped(answer: torch.Tensor, problem: Any, rows: torch.Tensor | None) -> torch.Tensor:
    answer = answer.double()
    return answer.view(problem.batch, problem.q_heads, -1) if rows is None else answer


@operator
class LabelChannelSelectorOperator(Operator):
    """Token ids, int32 [batch, q_heads, kept] in order, with the largest scores on the label channels.

    ``q`` [batch, q_heads, d] and ``labels`` [batch, kv_heads, S, r] are inputs; ``channels`` int32 [kv_heads, r] and, of
    int8 labels, ``scale`` float32 [kv_heads, r] are constants. Of equal scores the earlier token is listed.
    """

    name = "label_channel_selector"
    baselines = {"cpu": "torch_top_k", "cuda": "torch_top_k"}
    test_problems = tuple(
        LabelChannelSelector(
            batch=batch, q_heads=heads, kv_heads=kv_heads, kv_length=length, head_dim=d, channels=channels, kept=kept,
            label_precision=label,
        )
        for batch, heads, kv_heads, length, d, channels, kept, label in (
            (1, 1, 1, 3, 16, 4, 2, "float32"),
            (2, 4, 2, 131, 64, 16, 20, "float32"),
            (1, 6, 2, 67, 40, 5, 67, "float32"),
            (1, 3, 3, 1000, 64, 8, 60, "float32"),
            (2, 6, 2, 200, 64, 16, 13, "int8"),
            (1, 5, 1, 77, 32, 9, 30, "int8"),
            (1, 2, 2, 64, 32, 32, 1, "int8"),
            (1, 4, 2, 90, 64, 16, 11, "float16"),
            (1, 3, 3, 50, 48, 7, 9, "float16"),
            (2, 2, 1, 70, 32, 12, 25, "float16"),
        )
    )  # fmt: skip

    def make_constants(self, problem: LabelChannelSelector, generator: torch.Generator) -> dict[str, torch.Tensor]:
        channels = [
            torch.randperm(problem.head_dim, generator=generator)[: problem.channels].sort().values
            for _ in range(problem.kv_heads)
        ]
        constants = {"channels": torch.stack(channels).to(torch.int32)}
        if problem.label_precision == "int8":
            shape = (problem.kv_heads, problem.channels)
            constants["scale"] = torch.rand(shape, generator=generator) * 0.02 + 0.01
        return constants

    def make_inputs(self, problem: LabelChannelSelector, generator: torch.Generator) -> dict[str, torch.Tensor]:
        q = torch.randn(problem.batch, problem.q_heads, problem.head_dim, generator=generator)
        shape = (problem.batch, problem.kv_heads, problem.kv_length, problem.channels)
        labels = torch.randn(shape, generator=generator)
        if problem.label_precision == "int8":
            labels = labels.mul_(40.0).round_().clamp_(-127.0, 127.0)
        return {
            "q": q.to(getattr(torch, problem.precision)),
            "labels": labels.to(getattr(torch, problem.label_precision)),
        }

    def make_output(self, problem: LabelChannelSelector) -> torch.Tensor:
        return torch.empty(problem.batch, problem.q_heads, problem.kept, dtype=torch.int32)

    def reference(
        self, problem: LabelChannelSelector, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        which, group = _rows(problem, rows), problem.q_heads // problem.kv_heads
        kv_head = which // group % problem.kv_heads
        q = inputs["q"].reshape(-1, problem.head_dim)[which].double()
        short = q.gather(1, constants["channels"][kv_head].long())
        if "scale" in constants:
            short = short * constants["scale"][kv_head].double()
        labels = inputs["labels"].reshape(-1, problem.kv_length, problem.channels)
        scores = torch.stack([labels[one].double() @ query for one, query in zip(which // group, short, strict=True)])
        return _shaped(lists_of_top_k(scores, problem.kept), problem, rows)

    def tolerance(self, problem: LabelChannelSelector) -> Tolerance:
        return LISTS


@operator
class CentroidSelectorOperator(Operator):
    """Mask, int8 [batch, q_heads, S], of the tokens whose cluster's score is above a threshold.

    ``q`` [batch, q_heads, d], ``centroids`` [batch, kv_heads, C, d], ``sizes`` int32 [batch, kv_heads, C] and
    ``assignment`` int32 [batch, kv_heads, S] are inputs, ``threshold`` float32 [1] is a constant.
    """

    name = "centroid_selector"
    baselines = {"cpu": "torch_threshold", "cuda": "torch_threshold"}
    fixed_inputs = frozenset({"sizes", "assignment"})
    test_problems = tuple(
        CentroidSelector(
            batch=batch, q_heads=heads, kv_heads=kv_heads, kv_length=length, head_dim=d, centroids=centroids, kept=kept,
            precision=precision,
        )
        for batch, heads, kv_heads, length, d, centroids, kept, precision in (
            (1, 1, 1, 9, 16, 3, 0.5, "float32"),
            (2, 4, 2, 131, 64, 11, 0.2, "float32"),
            (1, 6, 2, 300, 40, 40, 0.3, "float32"),
            (1, 5, 1, 77, 80, 77, 0.1, "float32"),
            (1, 4, 2, 90, 64, 30, 0.2, "float16"),
        )
    )  # fmt: skip

    def make_constants(self, problem: CentroidSelector, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """The threshold that keeps the wanted share of other queries, on other centroids of the same distribution."""
        own = torch.Generator().manual_seed(problem.seed)
        q = torch.randn(1, 1, CALIBRATION_QUERIES, problem.head_dim, generator=own)
        centroids = torch.randn(1, 1, problem.centroids, problem.head_dim, generator=own)
        sizes = self._clusters(problem, own, 1)[1]
        scores = log_scores(cluster_logits(q, centroids), sizes)
        return {"threshold": torch.tensor([calibrated_threshold(scores, sizes, problem.kept)])}

    def _clusters(
        self, problem: CentroidSelector, generator: torch.Generator, heads: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clusters drawn evenly, of which none is empty, and their sizes; [1, heads, ...]."""
        count, length = problem.centroids, problem.kv_length
        drawn = torch.randint(count, (heads, length), generator=generator)
        drawn[:, :count] = torch.arange(count)
        shuffled = torch.stack([one[torch.randperm(length, generator=generator)] for one in drawn])
        sizes = torch.stack([torch.bincount(one, minlength=count) for one in shuffled])
        return shuffled.to(torch.int32)[None], sizes.to(torch.int32)[None]

    def make_inputs(self, problem: CentroidSelector, generator: torch.Generator) -> dict[str, torch.Tensor]:
        dtype, shape = getattr(torch, problem.precision), (problem.batch, problem.kv_heads)
        q = torch.randn(problem.batch, problem.q_heads, problem.head_dim, generator=generator)
        centroids = torch.randn(*shape, problem.centroids, problem.head_dim, generator=generator)
        own = torch.Generator().manual_seed(problem.seed)
        assignment, sizes = self._clusters(problem, own, problem.batch * problem.kv_heads)
        return {
            "q": q.to(dtype),
            "centroids": centroids.to(dtype),
            "sizes": sizes.view(*shape, -1),
            "assignment": assignment.view(*shape, -1),
        }

    def make_output(self, problem: CentroidSelector) -> torch.Tensor:
        return torch.empty(problem.batch, problem.q_heads, problem.kv_length, dtype=torch.int8)

    def reference(
        self, problem: CentroidSelector, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        logits = cluster_logits(inputs["q"].double()[:, :, None], inputs["centroids"].double())
        scores = log_scores(logits, inputs["sizes"])[:, :, 0]
        mask = kept_tokens(scores, inputs["assignment"], float(constants["threshold"]))
        return _shaped(mask.flatten(0, 1)[_rows(problem, rows)], problem, rows)

    def tolerance(self, problem: CentroidSelector) -> Tolerance:
        return Tolerance(0.03, "a cluster whose score is the threshold's within a rounding may fall on either side")


@operator
class CodebookSelectorOperator(Operator):
    """Token ids, int32 [batch, q_heads, sinks + kept + window] in order: first, best by codeword, last tokens.

    ``q`` [batch, q_heads, d] and ``codes`` int16 [batch, kv_heads, S] are inputs, ``codebook`` [kv_heads, C, d] is a
    constant. Of equal scores, as those of tokens with one code, the earlier token is listed.
    """

    name = "codebook_selector"
    baselines = {"cpu": "torch_codes", "cuda": "torch_codes"}
    test_problems = tuple(
        CodebookSelector(
            batch=batch, q_heads=heads, kv_heads=kv_heads, kv_length=length, head_dim=d, codes=codes, kept=kept,
            sinks=sinks, window=window,
        )
        for batch, heads, kv_heads, length, d, codes, kept, sinks, window in (
            (1, 1, 1, 3, 16, 2, 1, 1, 1),
            (2, 4, 2, 131, 64, 16, 20, 8, 64),
            (1, 6, 2, 300, 40, 33, 27, 3, 5),
            (1, 5, 1, 77, 80, 500, 40, 1, 36),
        )
    )  # fmt: skip

    def make_constants(self, problem: CodebookSelector, generator: torch.Generator) -> dict[str, torch.Tensor]:
        words = torch.randn(problem.kv_heads, problem.codes, problem.head_dim, generator=generator)
        return {"codebook": words.to(getattr(torch, problem.precision))}

    def make_inputs(self, problem: CodebookSelector, generator: torch.Generator) -> dict[str, torch.Tensor]:
        q = torch.randn(problem.batch, problem.q_heads, problem.head_dim, generator=generator)
        shape = (problem.batch, problem.kv_heads, problem.kv_length)
        codes = torch.randint(problem.codes, shape, generator=generator, dtype=torch.int16)
        return {"q": q.to(getattr(torch, problem.precision)), "codes": codes}

    def make_output(self, problem: CodebookSelector) -> torch.Tensor:
        return torch.empty(problem.batch, problem.q_heads, problem.kept + problem.always, dtype=torch.int32)

    def reference(
        self, problem: CodebookSelector, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        which, group = _rows(problem, rows), problem.q_heads // problem.kv_heads
        words = constants["codebook"][which // group % problem.kv_heads].double()
        q = inputs["q"].reshape(-1, problem.head_dim)[which].double()
        by_code = (words @ q[:, :, None])[:, :, 0]
        codes = inputs["codes"].reshape(-1, problem.kv_length)[which // group].long()
        scores = by_code.gather(1, codes)
        scores[:, : problem.sinks] = math.inf
        scores[:, problem.kv_length - problem.window :] = math.inf
        return _shaped(lists_of_top_k(scores, problem.kept + problem.always), problem, rows)

    def tolerance(self, problem: CodebookSelector) -> Tolerance:
        return LISTS
