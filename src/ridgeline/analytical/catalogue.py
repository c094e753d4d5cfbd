"""Descriptions of devices from outside: the catalogue that ships, and files of the user's own.

A file may be shorter than the device it describes. Sources are named once, in ``[sources.KEY]`` tables (with the kind of
the figures that cite them), ``low_per_s`` and ``high_per_s`` default to the value, the second operand and the accumulator
to what the first implies, and ``precisions`` lists those that share a rate. All of that is resolved before validation, so
that a :class:`Device` and what is stored of it are always complete.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ridgeline.analytical.device import Device, device_adapter
from ridgeline.analytical.work import accumulator_of

OWN_DEVICES = "RIDGELINE_DEVICES"
"""Environment variable that names a folder of the user's own device files."""
SHIPPED = "shipped"


class DeviceError(ValueError):
    """A device description that does not validate, or a name that no device has. One line: file, key, what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a driver says of the device, and what people call it."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str = ""
    """Regular expression that the driver's name has to match as a whole, whatever its case."""
    memory_bytes: tuple[float, float] | None = None
    """Range that the reported memory must lie in; default: around the capacity
    (:data:`ridgeline.analytical.identify.MEMORY_RANGE`)."""
    aliases: tuple[str, ...] = ()
    """Other names by which :func:`find_device` knows it."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.name)
        except re.error as error:
            raise ValueError(f"name: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A device of the catalogue, how it is recognised, and where its description is from."""

    device: Device
    match: Match
    origin: str
    """``shipped``, or the user's file and whether it stands in place of a shipped one."""


_MATCH = TypeAdapter(Match)


def device_from_dict(values: Mapping[str, Any], origin: str) -> Device:
    """Validate a device description, whole or in the short form of the files.

    Raises:
        DeviceError: one line naming ``origin``, the key and what is wrong.
    """
    return _entry(values, origin).device


def load_device(path: Path) -> Device:
    """Read a device from a TOML file.

    Raises:
        DeviceError: for a file that cannot be read, is not TOML, or does not validate.
    """
    return _load(path).device


def catalogue() -> dict[str, Device]:
    """Devices that ship with Ridgeline and those of the user's own folder, by id.

    Raises:
        DeviceError: for a file of the user's that does not load.
    """
    return {name: entry.device for name, entry in entries().items()}


def entries() -> dict[str, Entry]:
    """The same with how each is recognised. A file of the user's with the id of a shipped device replaces it.

    Raises:
        DeviceError: for a file of the user's that does not load, two of them with one id, or a folder that is none.
    """
    shipped = _shipped()
    own: dict[str, Entry] = {}
    for path in _own_files():
        entry = _load(path)
        name = entry.device.id
        if name in own:
            raise DeviceError(f"{path}: id: {name!r} is also that of {own[name].origin}")
        origin = f"{path}, in place of the shipped one" if name in shipped else str(path)
        own[name] = Entry(device=entry.device, match=entry.match, origin=origin)
    return {**shipped, **own}


def find_device(name_or_path: str) -> Device:
    """A device by id, by another of its names, by a unique start of either, or by the path of a TOML file.

    Raises:
        DeviceError: where nothing or more than one has the name, with what comes near; or as :func:`load_device`.
    """
    if name_or_path.endswith(".toml") or os.sep in name_or_path:
        return load_device(Path(name_or_path))
    wanted = _plain(name_or_path)
    known = entries()
    if wanted in known:
        return known[wanted].device
    names = {name: {name, *map(_plain, entry.match.aliases)} for name, entry in known.items()}
    called = [name for name, own in names.items() if wanted in own]
    begun = [name for name, own in names.items() if wanted and any(each.startswith(wanted) for each in own)]
    for found in (called, begun):
        if len(found) == 1:
            return known[found[0]].device
    near = called or begun or _near(wanted, names)
    what = "several devices are called" if called or begun else "no device is called"
    hint = f": {', '.join(near[:6])}" if near else "; ridgeline list devices shows them, or give a TOML file"
    raise DeviceError(f"{what} {name_or_path!r}{hint}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _near(wanted: str, names: Mapping[str, set[str]]) -> list[str]:
    """Ids that hold the text, or of which a name is nearly it."""
    owner = {each: name for name, own in names.items() for each in own}
    holding = [owner[each] for each in owner if wanted and wanted in each]
    similar = [owner[each] for each in difflib.get_close_matches(wanted, owner, n=6, cutoff=0.6)]
    return list(dict.fromkeys([*holding, *similar]))


@functools.cache
def _shipped() -> Mapping[str, Entry]:
    folder = resources.files("ridgeline.analytical") / "hardware"
    found = {}
    for item in sorted(folder.iterdir(), key=lambda each: each.name):
        if item.name.endswith(".toml"):
            entry = _entry(tomllib.loads(item.read_text(encoding="utf-8")), item.name, SHIPPED)
            found[entry.device.id] = entry
    return found


def _own_files() -> Iterator[Path]:
    value = os.environ.get(OWN_DEVICES, "")
    if not value:
        return
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DeviceError(f"{folder}: no such folder: {OWN_DEVICES} names the folder of your device files")
    yield from sorted(folder.glob("*.toml"))


def _load(path: Path) -> Entry:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(f"{path}: {error}") from None
    return _entry(values, str(path))


def _entry(values: Mapping[str, Any], file: str, origin: str | None = None) -> Entry:
    """``origin`` defaults to ``file``, which errors name."""
    facts = dict(values)
    match = facts.pop("match", {})
    whole = _resolved(facts, file)
    try:
        device = device_adapter().validate_python(whole)
    except ValidationError as error:
        raise DeviceError(f"{file}: {_first(error, 'device')}") from None
    try:
        recognised = _MATCH.validate_python(match)
    except ValidationError as error:
        raise DeviceError(f"{file}: match.{_first(error, 'name')}") from None
    return Entry(device=device, match=recognised, origin=origin or file)


def _first(error: ValidationError, whole: str) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    return f"{where}: {first['msg']}"


def _resolved(facts: dict[str, Any], file: str) -> dict[str, Any]:
    """The description without short forms; what is no table is left for the validation to name."""
    sources = facts.pop("sources", {})
    if not isinstance(sources, Mapping):
        raise DeviceError(f"{file}: sources: write [sources.KEY] tables with a title")
    whole = dict(facts)
    for part in ("rates", "bandwidths", "links", "power", "prices"):
        tables = facts.get(part)
        if not isinstance(tables, list | tuple):
            continue
        resolved = []
        for index, table in enumerate(tables):
            if not isinstance(table, Mapping):
                resolved.append(table)
                continue
            cited = _cited(table, sources, f"{file}: {part}.{index}")
            if part == "rates":
                resolved += _rates(cited)
            else:
                resolved.append(_with_interval(cited) if part == "bandwidths" else cited)
        whole[part] = resolved
    return whole


def _cited(table: Mapping[str, Any], sources: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table with its source written out, and the kind of that source where it states none itself."""
    key = table.get("source")
    if not isinstance(key, str):
        return dict(table)
    if key not in sources or not isinstance(sources[key], Mapping):
        raise DeviceError(f"{where}.source: no table [sources.{key}]; there is {', '.join(sources) or 'none'}")
    source = dict(sources[key])
    kind = source.pop("kind", None)
    cited = {**table, "source": source}
    return cited if kind is None else {"kind": kind, **cited}


def _rates(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    precisions = table.get("precisions")
    if isinstance(precisions, list) and all(isinstance(each, str) for each in precisions):
        del table["precisions"]  # anything else is left for the validation to name
    else:
        precisions = [None]
    for precision in precisions:
        rate = dict(table) if precision is None else {**table, "a": precision}
        if isinstance(rate.get("a"), str):
            rate.setdefault("b", rate["a"])
            rate.setdefault("accumulator", accumulator_of(rate["a"]))
        yield _with_interval(rate)


def _with_interval(table: dict[str, Any]) -> dict[str, Any]:
    if "value_per_s" not in table:
        return table
    return {"low_per_s": table["value_per_s"], "high_per_s": table["value_per_s"], **table}
