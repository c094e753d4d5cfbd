"""Problems of every operator and the closed forms of their work. Importing this package registers them all."""

from ridgeline.analytical.operators.attention import Attention, attention_pairs, attention_work
from ridgeline.analytical.operators.fma import Fma, fma_work
from ridgeline.analytical.operators.gemm import Gemm, gemm_work
from ridgeline.analytical.operators.stream import STREAM_ARRAYS, Stream, stream_work
from ridgeline.analytical.operators.weight_only_gemm import WeightOnlyGemm, weight_only_gemm_work

__all__ = [
    "STREAM_ARRAYS",
    "Attention",
    "Fma",
    "Gemm",
    "Stream",
    "WeightOnlyGemm",
    "attention_pairs",
    "attention_work",
    "fma_work",
    "gemm_work",
    "stream_work",
    "weight_only_gemm_work",
]
