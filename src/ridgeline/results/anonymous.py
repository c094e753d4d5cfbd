"""Taking out of stored facts what names a host or a person.

Numbers, yes or no, and the fields of an allow-list pass. Identities are hashed. All other text, such as the reason of
a failure, is free text: what looks like a path, an address, an identity, or the name of this host or user is replaced.
A field that is added to a record is free text until somebody puts it on the list.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import platform
import re
from collections.abc import Mapping
from typing import Any

KEPT = frozenset(
    {
        "kind", "record_id", "run_id", "started_at", "created_at", "role", "case_id", "content_key", "operator",
        "implementation", "baseline", "papers", "structure_digest", "status", "timer", "cache", "device",
        "torch_device", "limit", "plan_digest", "suite", "tool", "tool_version", "source_digest", "imported", "id",
        "device_id", "licence", "paper", "check", "check_kind", "states", "sources", "sources_hash",
    }
)  # fmt: skip
"""Text that is stored as it is: names of ours, hashes of what was measured, times."""

HASHED = frozenset({"placement.unit", "uuid", "gpu_uuid", "host", "hostname", "node", "user", "username", "serial"})
"""Text that tells one host, card or person from another: equal ones stay equal. ``unit`` is also
a kind of execution unit, so there it is told by what it stands in."""

ENVIRONMENT: Mapping[str, str] = {
    "version.": r"[0-9][\w.+!-]{0,40}",
    "python": r"[0-9][\w.+]{0,20}",
    "system": r"[A-Za-z]{1,20}",
    "kernel": r"[0-9]+(\.[0-9]+){1,3}",
    "machine": r"[\w]{1,20}",
    "cpu": r"[\w()@., -]{1,80}",
    "gpu": r"[\w()@., -]{1,80}",
    "driver": r"[0-9][\w.]{0,30}",
    "cuda": r"[0-9][\w.]{0,30}",
    "env.": r"[\w,.:-]{1,60}",
}
"""Keys of the environment that are packed (one that ends in a dot: all that begin with it), and what their value may
look like: the longest beginning that fits is packed, so that a kernel named after its builder loses the name."""

_PATH = re.compile(
    r"(?:file://)?(?:~|\b[A-Za-z]:(?=\\)|(?<![\w/])\.{0,2})(?:[/\\][^\s/\\:'\",;()<>\[\]]+)+[/\\]?"
    r"|\b[\w.-]+(?:/[\w.-]+)+\.[A-Za-z]{1,5}\b"
)
_ADDRESS = re.compile(
    r"\b\w+://\S+|[\w.+-]+@[\w.-]+|\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b"
    r"|\b[\w-]+(?:\.[\w-]+)*\.(?:local|lan|internal|intranet|corp|home|localdomain)\b"
)
_IDENTITY = re.compile(r"\b(?:GPU-|MIG-)?[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b")
_COMMON = frozenset({"root", "user", "localhost", "cpu", "gpu", "linux", "ubuntu", "runner", "test", "the", "kernel"})
"""Names of hosts and users that tell nothing, and that occur in text as words."""


class Anonymiser:
    """Makes stored values anonymous.

    Args:
        names: names of hosts and persons to take out of free text; by default of this host and user.
    """

    def __init__(self, names: frozenset[str] | None = None) -> None:
        found = _names_here() if names is None else names
        words = sorted((n for n in found if len(n) > 2 and n.lower() not in _COMMON), key=len, reverse=True)
        joined = "|".join(re.escape(word) for word in words)
        self._names = re.compile(rf"(?<![A-Za-z0-9])(?:{joined})(?![A-Za-z0-9])", re.IGNORECASE) if words else None

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` with every text in them looked at, at any depth."""
        return {key: self._value(key, value) for key, value in values.items()}

    def _value(self, key: str, value: Any, parent: str = "") -> Any:
        if isinstance(value, Mapping):
            return {self.text(str(k)): self._value(str(k), v, key) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(key, item, parent) for item in value]
        if not isinstance(value, str) or key in KEPT:
            return value
        identity = key in HASHED or f"{parent}.{key}" in HASHED
        return hashed(value) if identity and value else self.text(value)

    def text(self, value: str) -> str:
        """Free text without paths, addresses, identities, and the names of host and user."""
        value = _IDENTITY.sub("<id>", _ADDRESS.sub("<address>", value))
        value = _PATH.sub("<path>", value)
        return self._names.sub("<name>", value) if self._names else value


def hashed(identity: str) -> str:
    """Twelve hexadecimal digits that are the same for the same identity and do not tell it."""
    return hashlib.sha256(f"ridgeline packed {identity}".encode()).hexdigest()[:12]


def anonymous_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The facts of :data:`ENVIRONMENT`; a value that does not look like one is left out."""
    kept = {}
    for key, value in environment.items():
        allowed = next(
            (p for name, p in ENVIRONMENT.items() if key == name or (name[-1] == "." and key.startswith(name))), ""
        )
        match = re.match(allowed, value) if allowed and re.fullmatch(r"[\w.]+", key) else None
        if match is None or not match.group() or _IDENTITY.search(value):
            continue
        if key != "kernel" and match.end() != len(value):
            continue
        kept[key] = match.group()
    return kept


def _names_here() -> frozenset[str]:
    names = {platform.node(), *platform.node().split(".")}
    with contextlib.suppress(OSError, KeyError):
        names.add(getpass.getuser())
    names |= {os.environ.get(variable, "") for variable in ("USER", "LOGNAME", "SUDO_USER", "HOSTNAME")}
    return frozenset(names - {""})
