"""Which function reads which config: by ``model_type``, and by the class in ``architectures`` where that is missing."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from ridgeline.analytical.architectures.architecture import Architecture, ArchitectureError
from ridgeline.analytical.architectures.config import Config

Builder = Callable[[Config], Architecture]

_MODULES = (
    "dense",
    "gemma",
    "classic",
    "mixture",
    "deepseek",
    "recurrent",
    "encoders",
    "vision",
    "speech",
    "diffusion",
)
_BUILDERS: dict[str, Builder] = {}


def family(*names: str) -> Callable[[Builder], Builder]:
    """Register a function as the reader of configs whose ``model_type``, or class, is one of ``names``."""

    def register(builder: Builder) -> Builder:
        for name in names:
            if name in _BUILDERS and _BUILDERS[name].__qualname__ != builder.__qualname__:
                raise ValueError(f"architecture {name!r} is read by {_BUILDERS[name].__qualname__} already")
            _BUILDERS[name] = builder
        return builder

    return register


def families() -> tuple[str, ...]:
    """Every ``model_type`` and class that can be read."""
    _load()
    return tuple(sorted(_BUILDERS))


def architecture_from_config(config: Mapping[str, Any], origin: str, name: str = "") -> Architecture:
    """The architecture that a Hugging Face ``config.json`` describes. Nothing is looked up elsewhere.

    Args:
        config: the parsed file.
        origin: what to call it in an error: its path.
        name: what to call the model; by default the config's ``_name_or_path``, then its family.

    Raises:
        ArchitectureError: one line with ``origin`` and the key, for an architecture that is not known, a key that is
            missing, or a value that cannot be.
    """
    if not isinstance(config, Mapping):
        raise ArchitectureError(f"{origin}: must hold one JSON object, not {type(config).__name__}")
    reader = Config(config, origin)
    built = build(reader)
    if reader.has("quantization_config"):
        method = reader.section("quantization_config").values.get("quant_method", "unnamed")
        reader.notes.append(
            f"quantization_config ({method}) is not read: state the precisions of weights and activations"
        )
    return dataclasses.replace(
        built, name=name or str(config.get("_name_or_path") or "") or built.family, notes=reader.all_notes()
    )


def build(config: Config) -> Architecture:
    """As :func:`architecture_from_config`, for a config or a section of one that is being read."""
    _load()
    for key in (config.family, *config.classes):
        if key in _BUILDERS:
            return _BUILDERS[key](config)
    named = config.family or ", ".join(config.classes)
    if not named:
        raise config.error("model_type", 'missing, and no class in architectures: add one, such as "llama"')
    near = difflib.get_close_matches(named.lower(), _BUILDERS, n=3)
    raise config.error(
        "model_type",
        f"unknown architecture {named!r}{' (near: ' + ', '.join(near) + ')' if near else ''}: a reader of its keys is one "
        "function in analytical/architectures; or state the model by the keys of a known one",
    )


def _load() -> None:
    for module in _MODULES:
        importlib.import_module(f"ridgeline.analytical.architectures.{module}")
