"""The source code a kernel reaches: its file, and everything of this repository that it imports, with native sources.

Its hash is part of the content key, so a stored number is never taken for that of changed code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import ridgeline

PACKAGE = "ridgeline"
NATIVE = f"{PACKAGE}.kernels.native"


def source_hash(path: Path) -> str:
    """SHA-256 (32 hexadecimal digits) over the file and all repository files it reaches by imports.

    It does not depend on where this package or the file lie.
    """
    package = Path(ridgeline.__file__).resolve().parent
    named = {(str(f.relative_to(package)) if f.is_relative_to(package) else f.name): f for f in reached(path)}
    digest = hashlib.sha256()
    for name, file in sorted(named.items()):
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def reached(path: Path) -> set[Path]:
    """``path`` and every file of this package or of the kernel's own folder that it imports, directly or not.

    A kernel that reaches the native package reaches all C++ sources and headers of it.
    """
    found: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix != ".py":
            continue
        for module in _imports(file.read_text(encoding="utf-8")):
            target = _locate(module, file.parent)
            if target is not None:
                waiting.append(target)
                if module.startswith(NATIVE):
                    waiting.extend(p for p in target.parent.iterdir() if p.suffix in (".cpp", ".h"))
    return found


@cache
def _imports(source: str) -> frozenset[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(modules)


def _locate(module: str, folder: Path) -> Path | None:
    """The file of a module of this package or beside the kernel, or ``None`` for any other."""
    if module.split(".")[0] == PACKAGE:
        try:
            spec = importlib.util.find_spec(module)
        except (ModuleNotFoundError, AttributeError):
            return None  # `from module import name` where name is not a module
        return Path(spec.origin).resolve() if spec and spec.origin else None
    beside = folder / f"{module.split('.')[0]}.py"
    return beside.resolve() if beside.exists() else None
