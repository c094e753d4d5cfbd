"""Logs of helm-efficiency: what is read of them, the paper's fit, and a folder that holds none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ridgeline.analytical.idealized.helm_logs import read_logs
from ridgeline.analytical.idealized.points import IdealizedError
from ridgeline.analytical.idealized.published import published_runtimes


def write(folder: Path, name: str, off_s: float = 0.0) -> None:
    """A log of the published runtime ``gptj_6b`` with noise-free requests, its prompts ``off_s`` too slow."""
    runtime = published_runtimes()["gptj_6b"]
    lines = ["some header", "loading ..."]
    for p, s in zip(runtime.prompt_tokens, runtime.prompt_s, strict=True):
        for o in (1, 2, 8, 32):
            seconds = s + off_s + (o - 1) * runtime.step_s
            lines.append(f"{{'num_input_tokens': {p}, 'num_output_tokens': {o}}}: {seconds:.6f} seconds")
    (folder / "logs" / "a100").mkdir(parents=True, exist_ok=True)
    (folder / "logs" / "a100" / f"{name}.log").write_text("\n".join(lines), encoding="utf-8")


def test_the_papers_fit_gives_back_what_the_requests_were_made_of(tmp_path: Path) -> None:
    write(tmp_path, "gptj_6b")
    (log,) = read_logs(tmp_path)
    runtime = published_runtimes()["gptj_6b"]
    alpha, beta = log.refit()
    assert beta == pytest.approx(runtime.step_s)
    # Never below the shortest prompt's: that is a part of the fit.
    expected = [max(s, runtime.prompt_s[0]) for s in runtime.prompt_s]
    assert [alpha[p] for p in runtime.prompt_tokens] == pytest.approx(expected)
    off = log.off_published_s()
    assert off is not None
    assert off[1] == pytest.approx(0.0, abs=1e-6)


def test_a_log_that_is_off_is_seen(tmp_path: Path) -> None:
    write(tmp_path, "gptj_6b", off_s=0.005)
    (log,) = read_logs(tmp_path)
    off = log.off_published_s()
    assert off is not None
    assert math.isclose(off[0], 0.005, abs_tol=1e-6)


def test_an_architecture_that_is_not_published_has_no_distance(tmp_path: Path) -> None:
    write(tmp_path, "unheard_of")
    (log,) = read_logs(tmp_path)
    assert log.published is None
    assert log.off_published_s() is None


def test_a_folder_without_logs_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(IdealizedError, match="HELM_EFFICIENCY_DIR names a checkout"):
        read_logs(tmp_path)
