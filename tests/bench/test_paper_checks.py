"""Checks of papers: what can be registered and found, what a lab measures, and that a fault costs one check."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from ridgeline_process import Run

from ridgeline.bench.checks import IncorrectError
from ridgeline.bench.devices.cpu import detect
from ridgeline.bench.devices.cpu_session import CpuSession
from ridgeline.bench.devices.unit import Timer
from ridgeline.bench.paper_checks import frame
from ridgeline.bench.paper_checks.frame import Check, CheckError, Finding, Lab, check
from ridgeline.bench.paper_checks.lab import open_lab
from ridgeline.bench.paper_run import record_of, run_checks
from ridgeline.bench.papers_command import papers_command
from ridgeline.bench.supervisor import Outcome
from ridgeline.kernels import registry
from ridgeline.kernels.registry import Unsupported
from ridgeline.results.ledger import PapersError, load_ledger
from ridgeline.results.paper_state import states_of, stored_checks
from ridgeline.results.sources import check_hash, name_in_package, reached
from ridgeline.results.store import Store

GEMM = {"m": 8, "n": 48, "k": 32, "precision": "float32"}


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of a test are its own."""
    monkeypatch.setattr(frame, "_CHECKS", dict(frame._CHECKS))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab("cpu", threads=1) as lab:
        yield lab


def made(function: Callable[[Lab], Finding], kind: str = "correctness") -> Check:
    return Check("a", "b", kind, "s", function, Path(frame.__file__))  # type: ignore[arg-type]


def test_registered_checks_are_those_of_the_ledger_that_need_nothing_more() -> None:
    frame.load()
    ledger = load_ledger()
    registered = {(c.paper, c.name): c for c in frame.checks()}
    listed = {(p.id, c.name): (c.kind, p.missing_part(c), c.on) for p in ledger.values() for c in p.checks}
    assert set(registered) <= set(listed), "a check that its paper's TOML does not list"
    for key, found in registered.items():
        assert listed[key] == (found.kind, "", found.on), (
            f"{key}: another kind or device, or the TOML says it needs something"
        )
        assert found.path.stem == key[0].replace("-", "_").replace(".", "_")
    # A paper with any of its checks has all of them that the TOML does not say to need more.
    built = {paper for paper, _ in registered}
    assert {key for key, (_, part, _) in listed.items() if key[0] in built and not part} <= set(registered)


def test_a_finding_that_contradicts_itself_cannot_be_built() -> None:
    with pytest.raises(CheckError, match="without saying why"):
        Finding(passed=False)
    with pytest.raises(CheckError, match="a threshold without a value"):
        Finding(passed=True, threshold=1.0)
    with pytest.raises(CheckError, match="value is nan"):
        Finding(passed=False, value=float("nan"), text="t")
    for kind, finding, wrong in (
        ("ratio", Finding(passed=True), "a ratio has a value"),
        ("ratio", Finding(passed=False, value=1.0, threshold=2.0, text="slow"), "the roofline's reason"),
        ("quality", None, "returned NoneType, not a Finding"),
    ):
        with pytest.raises(CheckError, match=wrong):
            made(lambda lab, finding=finding: finding, kind).find(None)  # type: ignore[misc,arg-type]


def test_a_finding_of_numpy_numbers_is_plain_json() -> None:
    finding = Finding(passed=np.float64(1.0) > 0.5, value=np.float64(1.5), threshold=np.float32(0.5), text="t")
    assert json.loads(json.dumps(asdict(finding)))["passed"] is True


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("A b", "c", "ratio", "s"), "kebab-case"),
        (("a", "c_d", "ratio", "s"), "kebab-case"),
        (("a", "c", "speed", "s"), "unknown kind 'speed': one of correctness, quality, mechanism, ratio"),
        (("a", "c", "ratio", " "), "`states` is empty"),
    ],
)  # fmt: skip
def test_a_check_is_refused_where_it_is_declared(arguments: tuple[str, str, str, str], wrong: str) -> None:
    paper, name, kind, states = arguments
    with pytest.raises(CheckError, match=wrong):
        check(paper, name, kind=kind, states=states)  # type: ignore[arg-type]


def test_a_check_is_of_a_device_type_that_there_is() -> None:
    with pytest.raises(CheckError, match="unknown `on` 'tpu': one of cpu, cuda"):
        check("a", "c", kind="ratio", states="s", on="tpu")  # type: ignore[arg-type]


def test_checks_of_a_gpu_are_not_carried_out_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Check] = []
    monkeypatch.setattr(
        "ridgeline.bench.paper_run.run_checks", lambda chosen, *rest: (asked.extend(chosen), ("", []))[1]
    )
    papers_command(["s2-attention"], tmp_path / "store", "cpu", True, 60.0, True)
    assert {found.on for found in asked} == {"cpu"}
    assert {found.name for found in frame.checks("s2-attention")} - {found.name for found in asked} == {
        "gpu-faster-than-dense"
    }
    with monkeypatch.context() as patch:
        patch.setattr(frame, "checks", lambda paper: [gpu_check()])
        with pytest.raises(PapersError, match="no check of s2-attention is carried out on cpu"):
            papers_command(["s2-attention"], tmp_path / "store", "cpu", True, 60.0, True)


def gpu_check() -> Check:
    return Check("s2-attention", "b", "ratio", "s", lambda lab: Finding(True, 1.0), Path(frame.__file__), "cuda")


@pytest.mark.usefixtures("own_registry")
def test_two_checks_of_one_name_are_refused() -> None:
    check("a", "b", kind="quality", states="s")(test_two_checks_of_one_name_are_refused)  # type: ignore[arg-type]
    with pytest.raises(CheckError, match="defined twice"):
        check("a", "b", kind="quality", states="s")(made)  # type: ignore[arg-type]
    with pytest.raises(CheckError, match="no check 'c' of a: registered: b"):
        frame.get_check("a", "c")


def test_a_lab_measures_errors_against_the_reference(lab: Lab) -> None:
    assert 0.0 < lab.worst_error("gemm", GEMM, "torch") < 1e-5
    names = {name_in_package(path) for path in lab.sources}
    assert {"kernels/gemm/operator.py"} < names
    with pytest.raises(Unsupported, match=r"runs on cuda only; this device is cpu"):
        lab.worst_error("gemm", GEMM, "triton_tf32")
    with pytest.raises(registry.RegistryError, match="unknown implementation 'tosh' of gemm"):
        lab.worst_error("gemm", GEMM, "tosh")


class ScriptedTimer(Timer):
    """Reads a clock that only the timed functions move on."""

    name = "scripted"

    def __init__(self) -> None:
        self.now_s = 0.0
        self._noise = random.Random(0)

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        before = self.now_s
        launch(launches)
        return self.now_s - before

    def takes(self, seconds: float) -> Callable[[], None]:
        def move() -> None:
            self.now_s += seconds * self._noise.uniform(0.99, 1.01)

        return move


def test_a_lab_measures_ratios() -> None:
    timer, session = ScriptedTimer(), CpuSession()
    session.timer = timer
    lab = Lab(session, 1, 1e6, 0)
    slow = lab.function(timer.takes(3e-4), "slow")
    fast = lab.function([timer.takes(1e-4), timer.takes(1e-4)], "fast")
    found = lab.ratio(slow, fast, budget_s=0.1)
    assert (found.value, found.slow_s, found.fast_s) == pytest.approx((3.0, 3e-4, 1e-4), rel=0.01)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    assert str(found).startswith("3")
    assert lab.strongest([slow, fast]) is fast


def test_a_registered_implementation_is_a_side(lab: Lab) -> None:
    implementation, slow = lab.implementation("gemm", GEMM, "torch"), lab.function(lambda: sum(range(500_000)))
    assert lab.strongest([slow, implementation], cold=False) is implementation
    assert lab.ratio(slow, implementation, cold=False, budget_s=0.2).value > 2.0


def test_a_ratio_of_wrong_outputs_is_none(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(problem: object, constants: object, context: object) -> registry.Run:
        def run(inputs: object, out: torch.Tensor) -> None:
            out.fill_(1.0)

        return run

    right = registry.get_implementation("gemm", "torch")
    wrong = registry.Implementation(**{**vars(right), "name": "wrong", "prepare": prepare})
    monkeypatch.setitem(registry._IMPLEMENTATIONS, ("gemm", "wrong"), wrong)
    sides = lab.implementation("gemm", GEMM, "wrong"), lab.implementation("gemm", GEMM, "torch")
    with pytest.raises(IncorrectError, match="before timing: relative error"):
        lab.ratio(*sides, cold=False, budget_s=0.1)
    assert lab.worst_error("gemm", GEMM, "wrong") > 0.1, "a check may judge the error itself"


def test_random_numbers_are_the_same_every_time() -> None:
    with open_lab("cpu", threads=1, seed=3) as one, open_lab("cpu", threads=1, seed=3) as two:
        assert torch.equal(torch.rand(5, generator=one.generator), torch.rand(5, generator=two.generator))


OWN = """
import os
from ridgeline.bench.paper_checks.frame import Finding, check
from ridgeline.kernels.registry import Unsupported

@check("chess", "fine", kind="correctness", states="it is fine")
def fine(lab):
    worst = lab.worst_error("gemm", {"m": 2, "n": 8, "k": 8, "precision": "float32"}, "torch")
    return Finding(passed=worst < 1e-5, value=worst, threshold=1e-5, text="one shape")

@check("chess", "gone", kind="mechanism", states="it comes back")
def gone(lab):
    os._exit(7)

@check("chess", "elsewhere", kind="ratio", states="it is fast")
def elsewhere(lab):
    raise Unsupported("needs AVX-512")
"""


@pytest.mark.usefixtures("own_registry")
def test_a_crash_costs_one_check(tmp_path: Path) -> None:
    folder, store = tmp_path / "own", Store(tmp_path / "store")
    folder.mkdir()
    (folder / "own.py").write_text(OWN)
    registry.load([folder])
    seen: list[str] = []
    chosen = [frame.get_check("chess", name) for name in ("fine", "elsewhere", "gone")]

    def go() -> list[tuple[str, str, str]]:
        found = run_checks(
            chosen, detect(), store, lambda c, r: seen.append(c.name) if r else None, 60.0, [str(folder)]
        )[1]
        return [(r.check, r.status, r.reason) for r in found]

    answers = go()
    assert [(c, s) for c, s, _ in answers] == [("fine", "passed"), ("elsewhere", "unsupported"), ("gone", "crashed")]
    assert answers[2][2].startswith("exited with code 7")
    assert answers[1][2] == "needs AVX-512"
    (record, *_), (run,) = stored_checks(store), store.runs()
    assert (record.value or 1.0) < 1e-5
    assert record.threshold == 1e-5
    assert "kernels/gemm/operator.py" in record.sources
    assert (run.state, run.records, run.ok) == ("finished", 3, 1)


def test_what_a_worker_says_becomes_a_record() -> None:
    def of(kind: str, **fields: object) -> tuple[str, str]:
        record = record_of(
            made(lambda lab: Finding(True), kind), detect(), Outcome(fields, 0.0), "r", "2026-11-27T00:00:00+00:00", 1.0
        )
        return record.status, record.reason

    assert of("quality", status="incorrect", reason="NaN") == ("failed", "incorrect: NaN")
    assert of("ratio", status="incorrect", reason="NaN") == ("crashed", "incorrect: NaN")
    assert of("ratio", status="out_of_memory", reason="9 GB") == ("crashed", "out of memory: 9 GB")
    assert of("ratio", status="timeout", reason="no result after 3 s") == ("timeout", "no result after 3 s")


def test_the_hash_of_a_check_leaves_the_harness_out() -> None:
    file = "bench/paper_checks/frame.py"
    assert check_hash([file, "kernels/gemm/operator.py"]) == check_hash(["kernels/gemm/operator.py"])
    assert check_hash(["kernels/gemm/operator.py"]) != check_hash(["kernels/gemm/torch_matmul.py"])
    assert check_hash(["kernels/gemm/nothing.py"]) is None
    package = Path(frame.__file__).parents[2]
    assert package / "analytical" / "problem.py" in reached(package / "kernels" / "gemm" / "operator.py")


def test_papers_says_what_there_is(started_command: Run, tmp_path: Path) -> None:
    done = started_command("papers", "--json", "--store", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert len(rows) == 79
    keys = {"id", "title", "category", "state", "claims", "evidence", "ratios_missed"}
    assert all(keys <= set(row) for row in rows)
    assert {row["state"] for row in rows} == {"open"}, "nothing was checked in this store"


def test_one_paper_is_shown_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert papers_command(["flashsigmoid"], tmp_path, None, False, 60.0, False, tmp_path / "pages") == 0
    assert capsys.readouterr().out == f"1 page in {tmp_path / 'pages'}\n"
    assert [f.name for f in (tmp_path / "pages").iterdir()] == ["flashsigmoid.md"], "no ratio was measured, so no plot"
    assert papers_command(["flashsigmoid"], tmp_path, None, False, 60.0, False) == 0
    shown = capsys.readouterr().out
    for text in ("sigmoid-against-softmax", "17 %", "predicted", "not run"):
        assert text in shown


def test_bad_input_of_papers_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PapersError, match=r"^no paper 'flashsigmod': did you mean flashsigmoid"):
        papers_command(["flashsigmod"], tmp_path, None, False, 60.0, False)
    with pytest.raises(PapersError, match=r"^--pages /dev/null/x: Not a directory$"):
        papers_command(["archon"], tmp_path, None, False, 60.0, False, Path("/dev/null/x"))
    with pytest.raises(
        PapersError, match="no check of archon is built: `ridgeline papers archon` says what is missing"
    ):
        papers_command(["archon"], tmp_path, "cpu", True, 60.0, False)
    with pytest.raises(PapersError, match=r"--timeout 0: must be more than 0"):
        papers_command([], tmp_path, "cpu", True, 0.0, False)


def test_a_check_whose_code_changed_does_not_count(tmp_path: Path) -> None:
    check_record = record_of(
        made(lambda lab: Finding(True)), detect(),
        Outcome({"status": "ok", "finding": {"passed": True, "reason": ""}, "sources": [frame.__file__]}, 0.0),
        "r", "2026-11-27T00:00:00+00:00", 1.0,
    )  # fmt: skip
    paper = load_ledger()["flashsigmoid"]
    record = check_record.model_copy(update={"paper": paper.id, "check": paper.checks[0].name})
    (now,) = states_of([paper], [record], check_hash)
    (later,) = states_of([paper], [record], lambda sources: "changed")
    assert (now.checks[0].state, later.checks[0].state) == ("passed", "older source")
    assert "checked on an older version" in later.missing[0]
