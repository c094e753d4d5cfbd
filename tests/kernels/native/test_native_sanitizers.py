"""The sanitized build: an out-of-bounds read and an overflow that are planted must be reported, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import run_sanitized

from ridgeline.kernels.native import build

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For sources and for the cache."""
    try:
        run_sanitized.environment(Path("unused"))
    except run_sanitized.NoSanitizersError as error:
        pytest.skip(str(error))
    return tmp_path_factory.mktemp("planted"), tmp_path_factory.mktemp("cache")


def test_what_is_within_bounds_runs(folders: tuple[Path, Path]) -> None:
    code, output, report = run_sanitized.planted("doubled", (21,), *folders)
    assert (code, output, report) == (0, "42\n", "")


@pytest.mark.parametrize(
    ("call", "values", "says"),
    [("element", (8, 8), "heap-buffer-overflow"), ("doubled", (2**30,), "signed integer overflow")],
)
def test_planted_errors_are_reported(folders: tuple[Path, Path], call: str, values: tuple[int, ...], says: str) -> None:
    code, output, report = run_sanitized.planted(call, values, *folders)
    assert code != 0
    assert not output
    assert says in report
    assert "planted.cpp" in report


def test_the_switch_is_part_of_the_key_and_needs_the_sanitizers(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(build.SANITIZE, raising=False)
    plain = build.content_key("stream")
    monkeypatch.setenv(build.SANITIZE, "1")
    assert build.content_key("stream") != plain
    monkeypatch.setattr(build, "library", lambda *_: Path("unused.so"))
    monkeypatch.setenv("LD_PRELOAD", "")
    with pytest.raises(build.NativeBuildError, match="make test-sanitizers"):
        build.load.__wrapped__("planted", folders[0])


def test_every_test_file_with_native_code_is_run() -> None:
    names = {path.name for path in run_sanitized.test_files()}
    assert {"test_native_fma.py", "test_native_stream.py", "test_implementations.py"} <= names
    assert not names & set(run_sanitized.NOT_RUN)
