"""The cache of compiled C++: private, keyed by what goes in, safe from two processes, one clear line on failure."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.kernels.native import build

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler")

SOURCE = '#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIDGELINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "native"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.cpp").write_text(SOURCE)
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    return folder


def test_compiles_loads_and_leaves_nothing_else(cache: Path, folder: Path) -> None:
    assert build.load("answer", folder).answer() == 42
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".so"]


def test_second_call_compiles_nothing(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.library("answer", folder)
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.library("answer", folder) == first


def test_changed_header_compiles_again(cache: Path, folder: Path) -> None:
    first = build.library("answer", folder)
    (folder / "answer.h").write_text("#define ANSWER 43\n")
    second = build.library("answer", folder)
    assert first != second
    assert ctypes.CDLL(str(second)).answer() == 43


@pytest.mark.parametrize("part", ["flags", "cpu_identity", "_compiler_version"])
def test_key_holds_flags_cpu_and_compiler(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.content_key("answer", folder)
    changed = (*build.flags(), "-DOTHER") if part == "flags" else "other"
    monkeypatch.setattr(build, part, lambda *_: changed)
    assert build.content_key("answer", folder) != before


def test_own_sources_include_the_shared_headers() -> None:
    names = {path.name for path in build.sources("stream")}
    assert names == {"stream.cpp", "isa.h", "paths.h", "pool.h", "stream_loops.h"}
    assert not any("-march" in flag for flag in build.flags())


def test_no_compiler_is_one_clear_line(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build.NativeBuildError) as caught:
        build.library("answer", folder)
    assert str(caught.value) == build.NO_COMPILER
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.NativeBuildError, match="install g") as caught:
        build.library("answer", folder)
    assert "\n" not in str(caught.value)


def test_failed_compilation_is_its_first_error(cache: Path, folder: Path) -> None:
    (folder / "answer.h").write_text("#define ANSWER nonsense\n")
    with pytest.raises(
        build.NativeBuildError, match=r"answer\.cpp does not compile with .*error: .*nonsense"
    ) as caught:
        build.library("answer", folder)
    assert "\n" not in str(caught.value)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_missing_source_is_named(folder: Path) -> None:
    with pytest.raises(build.NativeBuildError, match=r"absent\.cpp: no such C\+\+ source"):
        build.sources("absent", folder)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_folder_that_others_may_write_is_refused(cache: Path, folder: Path, mode: int) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)
    with pytest.raises(build.NativeBuildError, match="others may write"):
        build.library("answer", folder)


def test_folder_of_another_user_is_refused(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(build.NativeBuildError, match="belongs to user"):
        build.library("answer", folder)


def test_link_is_refused(cache: Path, folder: Path, tmp_path: Path) -> None:
    cache.parent.mkdir()
    cache.symlink_to(tmp_path)
    with pytest.raises(build.NativeBuildError, match="is a link"):
        build.library("answer", folder)


def test_two_processes_compile_once(cache: Path, folder: Path, tmp_path: Path) -> None:
    real = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    wrapper = tmp_path / "counting-compiler"
    log = tmp_path / "compilations"
    wrapper.write_text(
        f'#!/bin/sh\nif [ "$1" != --version ]; then echo once >> {log}; sleep 0.3; fi\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    program = (
        "import sys; from pathlib import Path; from ridgeline.kernels.native import build;"
        "print(build.load('answer', Path(sys.argv[1])).answer())"
    )
    source_root = str(Path(build.__file__).parents[3])
    environment = {**os.environ, "CXX": str(wrapper), "PYTHONPATH": source_root}
    command = [sys.executable, "-c", program, str(folder)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[0] for process in running] == ["42\n"] * 3
    assert log.read_text().split() == ["once"]


def test_permitted_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    available = ("avx512_vnni", "avx_vnni", "avx512", "avx2", "portable")
    monkeypatch.delenv("RIDGELINE_NATIVE_ISA", raising=False)
    assert build.permitted_paths(available) == available
    monkeypatch.setenv("RIDGELINE_NATIVE_ISA", "avx2")
    assert build.permitted_paths(available) == ("avx_vnni", "avx2", "portable")
    monkeypatch.setenv("RIDGELINE_NATIVE_ISA", "portable")
    assert build.permitted_paths(available) == ("portable",)
    monkeypatch.setenv("RIDGELINE_NATIVE_ISA", "sse9")
    with pytest.raises(build.NativeCallError, match="RIDGELINE_NATIVE_ISA"):
        build.permitted_paths(available)
