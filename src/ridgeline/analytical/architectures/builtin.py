"""The models that ship with Ridgeline: one TOML file each, written from its published dimensions."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ridgeline.analytical.architectures.architecture import Architecture, ArchitectureError
from ridgeline.analytical.architectures.registry import architecture_from_config


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was published about a model's size."""

    parameters: float
    """The figure as printed, rounded as the source rounds it."""
    exact: int | None
    """The exact count where it is known."""
    source: str


@dataclass(frozen=True, kw_only=True)
class BuiltinModel:
    """A model that ships: its dimensions as a config, and what was published about it."""

    name: str
    aliases: tuple[str, ...]
    source: str
    checked: str
    """What of it was looked up, and what was recalled."""
    published: Published
    config: dict[str, Any]

    @property
    def architecture(self) -> Architecture:
        """Its architecture."""
        return architecture_from_config(self.config, f"built-in model {self.name}", self.name)


@cache
def builtin_models() -> dict[str, BuiltinModel]:
    """Every model that ships, by name."""
    folder = resources.files("ridgeline.analytical.architectures") / "models"
    models = {}
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            model = _read(tomllib.loads(entry.read_text(encoding="utf-8")))
            models[model.name] = model
    return models


def _read(values: dict[str, Any]) -> BuiltinModel:
    source, published, config = values["source"], values["published"], dict(values["config"])
    # TOML has no null, which some configs need to say "none".
    for key in config.pop("null_keys", ()):
        config[key] = None
    return BuiltinModel(
        name=values["name"],
        aliases=tuple(values["aliases"]),
        source=": ".join(text for text in (source["title"], source["detail"]) if text),
        checked=values["checked"],
        published=Published(
            parameters=float(published["parameters"]), exact=published.get("exact"), source=published["source"]
        ),
        config=config,
    )


def load_architecture(model: str | Path) -> Architecture:
    """The architecture of a built-in model, or of a ``config.json``: the file, or the folder that holds it.

    A name that is no path is looked up among the built-in models and their aliases; case does not matter.

    Raises:
        ArchitectureError: one line for a name that is neither, a file that cannot be read, or one that cannot be
            understood.
    """
    path = Path(model)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json" or path.is_file():
        return _from_file(path)
    wanted = str(model).lower()
    for builtin in builtin_models().values():
        if wanted in (builtin.name, *(alias.lower() for alias in builtin.aliases)):
            return builtin.architecture
    raise ArchitectureError(
        f"{model}: no file and no built-in model; `ridgeline list models` shows those, or give the path of a config.json"
    )


def _from_file(path: Path) -> Architecture:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArchitectureError(f"{path}: {error}") from None
    stem = path.parent.name if path.name == "config.json" else path.stem
    return architecture_from_config(values, str(path), stem)
