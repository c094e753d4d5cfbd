"""Reading a config.json key by key: what is missing or of the wrong type is one line, a default is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline.analytical.architectures.architecture import ArchitectureError

_MISSING = object()


class Config:
    """A view of a config mapping that refuses what it cannot read and remembers each default that was taken.

    A key may have aliases (``n_embd`` for ``hidden_size``): the first that is present counts. JSON's ``null`` is the
    same as a missing key, as it is in these files.
    """

    def __init__(self, values: Mapping[str, Any], origin: str) -> None:
        self.values = values
        self.origin = origin
        self.defaults: list[str] = []
        self.notes: list[str] = []

    @property
    def family(self) -> str:
        """``model_type``, or diffusers' ``_class_name``."""
        return str(self.values.get("model_type") or self.values.get("_class_name") or "")

    @property
    def classes(self) -> tuple[str, ...]:
        """``architectures``: the classes that the weights were saved from."""
        classes = self.values.get("architectures") or ()
        return tuple(str(name) for name in classes) if isinstance(classes, (list, tuple)) else ()

    def error(self, key: str, message: str) -> ArchitectureError:
        """One line that names the file and the key."""
        return ArchitectureError(f"{self.origin}: {key}: {message}")

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def integer(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least ``least``; ``default`` is what the format itself takes for a missing key."""
        key, value = self._find(keys)
        if value is _MISSING:
            return int(self._default(keys[0], default))
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"must be a whole number of at least {least}, not {value!r}")
        return value

    def optional_integer(self, *keys: str) -> int | None:
        """A whole number, or ``None`` for a missing key or null: where the format means "none" by it."""
        _, value = self._find(keys)
        return None if value is _MISSING else self.integer(*keys)

    def number(self, *keys: str, default: float | None = None) -> float:
        """A positive number."""
        key, value = self._find(keys)
        if value is _MISSING:
            return float(self._default(keys[0], default))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise self.error(key, f"must be a positive number, not {value!r}")
        return float(value)

    def flag(self, *keys: str, default: bool | None = None) -> bool:
        """True or false."""
        key, value = self._find(keys)
        if value is _MISSING:
            return bool(self._default(keys[0], default))
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def text(self, *keys: str, default: str | None = None) -> str:
        """Text."""
        key, value = self._find(keys)
        if value is _MISSING:
            return str(self._default(keys[0], default))
        if not isinstance(value, str):
            raise self.error(key, f"must be text, not {value!r}")
        return value

    def sequence(self, key: str) -> Sequence[Any]:
        """A list."""
        value = self.values.get(key)
        if value is None:
            raise self._missing(key)
        if not isinstance(value, (list, tuple)):
            raise self.error(key, f"must be a list, not {value!r}")
        return value

    def section(self, key: str) -> Config:
        """A nested mapping; its defaults and notes are those of the whole."""
        value = self.values.get(key)
        if value is None:
            raise self._missing(key)
        if not isinstance(value, Mapping):
            raise self.error(key, f"must be a mapping, not {value!r}")
        nested = Config(value, f"{self.origin}: {key}")
        nested.defaults, nested.notes = self.defaults, self.notes
        return nested

    def assume(self, **values: Any) -> None:
        """Give missing keys the values that the format's own class has for them, and write that down."""
        missing = {key: value for key, value in values.items() if not self.has(key)}
        for key, value in missing.items():
            self._default(key, value)
        self.values = {**self.values, **missing}

    def assume_from(self, other: Config, key: str) -> None:
        """Take a missing key from ``other``: the whole of which this is a section."""
        if not self.has(key) and other.has(key):
            self.values = {**self.values, key: other.values[key]}

    def divide(self, total_key: str, total: int, part_key: str, part: int) -> int:
        """``total / part`` where it is a whole number."""
        if total % part:
            raise self.error(part_key, f"must divide {total_key}: {total} / {part} is no whole number; state head_dim")
        return total // part

    def all_notes(self) -> tuple[str, ...]:
        """What was noted, and one line with the defaults taken."""
        notes = list(dict.fromkeys(self.notes))
        if self.defaults:
            notes.append("not in the config, taken as its format has it: " + ", ".join(dict.fromkeys(self.defaults)))
        return tuple(notes)

    def _missing(self, key: str) -> ArchitectureError:
        needs = self.family or "this model"
        return self.error(key, f"missing; {needs} needs it: copy it from the model's config.json")

    def _find(self, keys: Sequence[str]) -> tuple[str, Any]:
        for key in keys:
            if self.values.get(key) is not None:
                return key, self.values[key]
        return keys[0], _MISSING

    def _default(self, key: str, default: Any) -> Any:
        if default is None:
            raise self._missing(key)
        self.defaults.append(f"{key} = {str(default).lower() if isinstance(default, bool) else default}")
        return default
