"""The source code a kernel reaches: its file, and everything of this repository that it imports, with native sources.

Its hash is part of the content key, so a stored number is never taken for that of changed code.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import ridgeline

PACKAGE = "ridgeline"
NATIVE = f"{PACKAGE}.kernels.native"


def source_hash(path: Path) -> str:
    """SHA-256 (32 hexadecimal digits) over the file and all repository files it reaches by imports.

    It does not depend on where this package or the file lie.
    """
    return _hash(reached(path))


def check_hash(files: Iterable[str]) -> str | None:
    """The same over all that a check of a paper reaches, but for the harness that carries it out.

    As with measurements, what measures (the package ``bench``, but for the checks themselves) is no part of it.

    Args:
        files: paths relative to the package: the check's, and those of the operators and implementations it used.

    Returns:
        ``None`` where one of them is not there any more.
    """
    paths = [_package() / name for name in files]
    if not all(path.is_file() for path in paths):
        return None
    return _hash(set().union(*(reached(path, _harness) for path in paths)))


def name_in_package(path: Path) -> str:
    """``path`` relative to the package; its name alone where it lies elsewhere."""
    return str(path.relative_to(_package())) if path.is_relative_to(_package()) else path.name


def _package() -> Path:
    return _folder_of(ridgeline.__file__ or "")


@cache
def _folder_of(file: str) -> Path:
    # Kept: what ninety thousand imports of a look at all papers were resolved for took two thirds of its time.
    return Path(file).resolve().parent


def _harness(file: Path) -> bool:
    checks = _package() / "bench" / "paper_checks"
    own = file.is_relative_to(checks) and file.name not in ("frame.py", "lab.py")
    return file.is_relative_to(_package() / "bench") and not own


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted((name_in_package(file), file) for file in files):
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def reached(path: Path, leave_out: Callable[[Path], bool] = lambda file: False) -> set[Path]:
    """``path`` and every file of this package or of the kernel's own folder that it imports, directly or not.

    A kernel that reaches the native package reaches all C++ sources and headers of it. Files that ``leave_out`` names,
    and what only they import, do not count.
    """
    found: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file in found or leave_out(file):
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
    names = module.split(".")
    if names[0] == PACKAGE:
        return _in_package(_package(), tuple(names[1:]))
    beside = folder / f"{names[0]}.py"
    return beside.resolve() if beside.exists() else None


@cache
def _in_package(package: Path, names: tuple[str, ...]) -> Path | None:
    # By path: the import system would execute the parents, and a kernel's parents import torch. Kept, because a plan of a
    # hundred cases asks for the same few hundred modules a hundred times.
    place = package.joinpath(*names)
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)
