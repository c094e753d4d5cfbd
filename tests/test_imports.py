"""The floors of the house: which package may import which, and what is never imported at all."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ridgeline

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(ridgeline.__file__).resolve().parent

MAY_IMPORT: dict[str, set[str]] = {
    "analytical": set(),
    "results": {"analytical"},
    "kernels": {"analytical"},
    "workloads": {"analytical", "kernels"},
    "bench": {"analytical", "results", "kernels", "workloads"},
    "dashboard": {"analytical", "results"},
    "": set(),  # ridgeline/__init__.py: everything it offers is loaded on first use
}
WITHOUT_TORCH = {"analytical", "results", "dashboard", ""}
TORCH = {"torch", "triton", "numba", "torchvision", "torchaudio"}
LAZY = {("analytical", "numba")}
"""Allowed inside functions: what is faster with it and works without."""
NEVER = {"tests", "benchmarks", "pytest", "hypothesis", *MAY_IMPORT} - {""}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def imports_of(file: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute module name and whether the import is relative, of every import in ``file``, at any depth."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or ""), True
                continue
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}", False
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            argument = node.args[0]
            if name in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                yield node.lineno, str(argument.value), False


def violations(package: Path) -> list[str]:
    """Every import under ``package`` (a folder called ``ridgeline``) that the table does not allow."""
    found = []
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).parts
        floor = parts[0] if len(parts) > 1 else ""
        if floor not in MAY_IMPORT:
            found.append(f"{file}: {floor} is no package of the table")
            continue
        top = {node.lineno for node in ast.parse(file.read_text(encoding="utf-8"), str(file)).body}
        for line, module, relative in imports_of(file):
            if (floor, module) in LAZY and line not in top:
                continue
            where = f"{file.relative_to(package)}:{line}: {module}"
            names = module.split(".")
            if relative:
                found.append(f"{where}: relative")
            elif names[0] in NEVER:
                found.append(f"{where}: never imported from here")
            elif names[0] in TORCH and floor in WITHOUT_TORCH:
                found.append(f"{where}: {floor or 'the package'} works without it")
            elif names[0] == "ridgeline" and len(names) > 1:
                target = names[1]
                if target in MAY_IMPORT and target != floor and target not in MAY_IMPORT[floor]:
                    found.append(f"{where}: {floor or 'the package'} may not import {target}")
    return found


def test_every_import_is_allowed() -> None:
    assert violations(PACKAGE) == []


def test_every_package_of_the_table_is_there_and_has_code() -> None:
    for floor in MAY_IMPORT:
        assert list((PACKAGE / floor).glob("*.py")), floor


FORBIDDEN = {
    "analytical/a.py": ("from ridgeline.results.store import Store", "may not import results"),
    "analytical/l.py": ("import numba", "works without it"),
    "results/b.py": ("def f():\n    from ridgeline import kernels", "may not import kernels"),
    "results/c.py": ("def f():\n    import torch.nn", "works without it"),
    "kernels/gemm/d.py": ("from ridgeline.bench import plan", "may not import bench"),
    "workloads/e.py": ("import ridgeline.results.record as r", "may not import results"),
    "bench/f.py": ("from ridgeline.dashboard.serve import serve", "may not import dashboard"),
    "dashboard/g.py": ("import importlib\nimportlib.import_module('ridgeline.kernels')", "may not import kernels"),
    "bench/h.py": ("from .plan import Plan", "relative"),
    "bench/i.py": ("if 1:\n    from tests.results import synthetic", "never imported"),
    "kernels/j.py": ("import bench", "never imported"),
    "__init__.py": ("from ridgeline.results.store import Store", "may not import results"),
    "cellar/k.py": ("", "no package of the table"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_check_fails_on_a_forbidden_arrow(tmp_path: Path, name: str) -> None:
    text, complaint = FORBIDDEN[name]
    good = tmp_path / "ridgeline" / "bench" / "good.py"
    good.parent.mkdir(parents=True)
    good.write_text("import torch\nfrom ridgeline.bench import plan\nfrom ridgeline.results.store import Store\n")
    lazy = tmp_path / "ridgeline" / "analytical" / "lazy.py"
    lazy.parent.mkdir(parents=True)
    lazy.write_text("def kernel():\n    import numba\n")
    assert violations(tmp_path / "ridgeline") == []
    bad = tmp_path / "ridgeline" / name
    bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_text(text)
    (only,) = violations(tmp_path / "ridgeline")
    assert name in only
    assert complaint in only


LIGHT = {
    "ridgeline": ("numpy", "torch"),
    "ridgeline.analytical": ("torch",),
    "ridgeline.results": ("torch",),
    "ridgeline.results.store": ("torch",),
    "ridgeline.results.views": ("torch",),
    "ridgeline.analytical.device": ("torch",),
    "ridgeline.bench.cli": ("torch", "pandas", "streamlit", "pyarrow", "scipy", "numpy", "duckdb"),
}


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_module_does_not_pull_in(module: str) -> None:
    code = f"import sys, {module}\nprint(*[m for m in {LIGHT[module]!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_module_has_a_name_that_says_nothing(folder: str) -> None:
    named = {path.stem for path in (ROOT / folder).rglob("*") if path.suffix in (".py", "") and path.name[0] != "."}
    assert not named & VAGUE_NAMES


@pytest.mark.parametrize("name", sorted(set(MAY_IMPORT) - {""}))
def test_a_link_at_the_top_gives_the_folder_its_name(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert os.readlink(link) == f"src/ridgeline/{name}"
    assert link.resolve() == ROOT / "src" / "ridgeline" / name
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "--stage", name], cwd=ROOT, capture_output=True, text=True).stdout
    assert listed.startswith("120000 "), f"{name} is not a link tracked by git"
