"""Models by their dimensions: what a config.json describes, its parameters, and the operators of a step."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture, ArchitectureError
from ridgeline.analytical.architectures.builtin import BuiltinModel, Published, builtin_models, load_architecture
from ridgeline.analytical.architectures.registry import architecture_from_config, families

__all__ = [
    "Architecture",
    "ArchitectureError",
    "BuiltinModel",
    "Published",
    "architecture_from_config",
    "builtin_models",
    "families",
    "load_architecture",
]
