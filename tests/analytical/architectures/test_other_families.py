"""Exact parameter counts of families that no built-in model stands for.

The counts are those of transformers' models (vision: torchvision's and timm's), recalled and not looked up: a wrong
digit would not come out of the formulas by chance.
"""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline.analytical.architectures import architecture_from_config

VIT = {"model_type": "vit", "image_size": 224, "patch_size": 16, "num_channels": 3, "num_labels": 1000}
OTHERS: dict[str, tuple[dict[str, Any], int]] = {
    "phi-3.5-moe": (
        {
            "model_type": "phimoe",
            "hidden_size": 4096,
            "intermediate_size": 6400,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 32064,
            "num_local_experts": 16,
            "num_experts_per_tok": 2,
            "attention_bias": True,
            "lm_head_bias": True,
            "tie_word_embeddings": False,
        },
        41873153344,
    ),
    "distilbert": (
        {
            "model_type": "distilbert",
            "dim": 768,
            "n_layers": 6,
            "n_heads": 12,
            "hidden_dim": 3072,
            "vocab_size": 30522,
            "max_position_embeddings": 512,
        },
        66362880,
    ),
    "roberta": (
        {
            "model_type": "roberta",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 50265,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
        124645632,
    ),
    "deit-b-dist": (
        {
            **VIT,
            "model_type": "deit",
            "architectures": ["DeiTForImageClassificationWithTeacher"],
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
        87338192,
    ),
    "vit-l": (
        {**VIT, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        304326632,
    ),
    "convnext-b": (
        {"model_type": "convnext", "hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3], "num_labels": 1000},
        88591464,
    ),
    "opt-350m": (
        {
            "model_type": "opt",
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "ffn_dim": 4096,
            "word_embed_proj_dim": 512,
            "vocab_size": 50272,
            "max_position_embeddings": 2048,
            "do_layer_norm_before": False,
        },
        331196416,
    ),
    "bloom-560m": (
        {"model_type": "bloom", "hidden_size": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 250880},
        559214592,
    ),
    "pythia-160m": (
        {
            "model_type": "gpt_neox",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 50304,
        },
        162322944,
    ),
    "whisper-tiny": (
        {
            "model_type": "whisper",
            "d_model": 384,
            "encoder_layers": 4,
            "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_layers": 4,
            "decoder_attention_heads": 6,
            "decoder_ffn_dim": 1536,
            "num_mel_bins": 80,
            "max_source_positions": 1500,
            "max_target_positions": 448,
            "vocab_size": 51865,
        },
        37760640,
    ),
    "falcon-mamba": (
        {
            "model_type": "falcon_mamba",
            "hidden_size": 4096,
            "intermediate_size": 8192,
            "num_hidden_layers": 64,
            "state_size": 16,
            "conv_kernel": 4,
            "time_step_rank": 256,
            "vocab_size": 65024,
            "tie_word_embeddings": False,
        },
        7272665088,
    ),
    "mamba-130m": (
        {
            "model_type": "mamba",
            "hidden_size": 768,
            "intermediate_size": 1536,
            "num_hidden_layers": 24,
            "state_size": 16,
            "conv_kernel": 4,
            "time_step_rank": 48,
            "vocab_size": 50280,
        },
        129135360,
    ),
    "qwen3-next": (
        {
            "model_type": "qwen3_next",
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "vocab_size": 151936,
            "linear_num_key_heads": 16,
            "linear_key_head_dim": 128,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "intermediate_size": 5120,
            "full_attention_interval": 4,
        },
        79674391296,
    ),
    "gemma-2-2b": (
        {
            "model_type": "gemma2",
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 256000,
            "sliding_window": 4096,
        },
        2614341888,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_parameters_agree_to_the_last_digit(name: str) -> None:
    config, count = OTHERS[name]
    assert architecture_from_config(config, name).parameter_count == count
