"""``ridgeline model idealize``: what it prints of each source of points, and the one line that bad input gets."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_model_step import REQUESTS, model_step, store_of

from ridgeline.bench import live_requests
from ridgeline.bench.cli import main
from ridgeline.bench.devices.choose import choose_unit
from ridgeline.bench.devices.unit import Observed
from ridgeline.bench.live_requests import Trial, build, measure, measure_into
from ridgeline.bench.locks import held
from ridgeline.results.measurement import Conditions
from ridgeline.results.store import Store
from ridgeline.workloads.runnable.sizes import SIZES, DecoderSize

HEADER = "p,o,seconds\n"
GOOD = HEADER + "".join(
    f"{p},{o},{0.02 + 1e-4 * p + 0.01 * (o - 1)}\n" for p, o in ((1, 1), (16, 1), (64, 1), (256, 1), (1, 16), (256, 16))
)


class Command:
    """Runs ``ridgeline model idealize`` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["ridgeline", "model", "idealize", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err

    def json(self, *arguments: str | Path) -> Any:
        code, out, err = self(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_a_csv_is_fitted_and_predicts(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(GOOD)
    found = command.json(path, "--at", "100,8", "--at", "4000,2", "--usd-per-hour", "3.6", "--devices", "2")
    near, far = found["predictions"]
    assert near["value"] == pytest.approx(0.1, rel=0.01)
    assert near["low"] < near["value"] < near["high"]
    assert near["usd_per_request"] == pytest.approx(2e-4, rel=0.01)
    assert (near["extrapolated"], far["extrapolated"]) == (False, True)
    assert found["constants"]["step"] == pytest.approx(0.01, rel=0.01)
    assert [(q["p"], q["o"]) for q in found["points"]] == sorted(REQUESTS)
    code, out, err = command(path, "--at", "100,8")
    assert (code, err) == (0, "")
    for text in ("Constants in s: flat 0.02", "Each point from the others: median error", "90% interval"):
        assert text in out


def test_energy_and_trials_of_a_csv(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    rows = [f"{p}, {o}, {5 + 0.1 * p + 2 * o + more}, x" for p, o in REQUESTS for more in (0, 0.1, 4)]
    path.write_text("\n".join(["p, o, joules, note", *rows]))
    found = command.json(path, "--response", "joules", "--denoise", "--at", "100,8")
    assert found["predictions"][0]["value"] == pytest.approx(31.0, rel=0.02)
    assert {q["trials"] for q in found["points"]} == {3}


def test_a_run_is_fitted_and_shown(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [model_step(p, o) for p, o in REQUESTS]
    both += [model_step(p, o, precision="float32", record_id=f"f{p}-{o}") for p, o in REQUESTS]
    _, run_id = store_of(tmp_path, both)
    code, out, err = command("--run", run_id, "--store", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "2 series, and a fit is of one" in err
    found = command.json("--run", "latest", "--series", "int8", "--store", tmp_path, "--at", "100,8")
    assert found["predictions"][0]["value"] == pytest.approx(0.1, rel=0.01)
    assert found["source"].startswith(f"run {run_id}: tiny int8, synthetic-cpu")
    for arguments, read in ((["--json"], json.loads), ([], str)):
        monkeypatch.setattr(sys, "argv", ["ridgeline", "show", run_id, "--store", str(tmp_path), *arguments])
        main_output = command_output(command)
        shown = read(main_output)
        if arguments:
            assert {row["kind"] for row in shown} == {"model_step"}
            assert shown[0]["samples_s"] == [list(trial) for trial in both[0].samples_s]
        else:
            assert "Requests to whole models" in shown


def command_output(command: Command) -> str:
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = command._capsys.readouterr()
    assert ((ended.value.code or 0), err) == (0, "")
    return out


def test_the_ideal_of_a_run_needs_measured_roofs(command: Command, tmp_path: Path) -> None:
    _, run_id = store_of(tmp_path, [model_step(p, o) for p, o in REQUESTS])
    code, _, err = command("--run", run_id, "--model", "geb-1.3b", "--store", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "measure them with `ridgeline roofs`" in err


def test_published_runtimes_are_marked_so(command: Command) -> None:
    found = command.json("--published", "together/bloom", "--at", "1000,10", "--usd-per-hour", "2")
    assert found["source"].startswith("published, not measured by us: bloom on 8 A100")
    row = found["predictions"][0]
    assert row["value"] == pytest.approx(0.339 + 9 * 0.061, rel=0.02)
    assert row["usd_per_request"] == pytest.approx(row["value"] * 8 * 2 / 3600)
    assert "105 layers were profiled" in command.json("--published", "mt_nlg_530b")["source"]
    names = [row["name"] for row in command.json("--published", "list")]
    assert len(names) == 12


def test_software_efficiency_against_the_roofline(command: Command) -> None:
    found = command.json(
        "--published", "gptj_6b", "--at", "1000,20", "--model", "gpt-j-6b", "--device", "nvidia-a100-sxm4-80gb",
        "--weights", "float16", "--activations", "float16",
    )  # fmt: skip
    (row,) = found["predictions"]
    bytes_s = 2 * 6.05e9 / 2.039e12  # every weight once a token
    flop_s = 2 * 6.05e9 * 1000 / 312e12
    assert row["ideal_s"] == pytest.approx(flop_s + 19 * bytes_s, rel=0.05)
    assert row["software_efficiency"] == pytest.approx(row["ideal_s"] / row["value"])
    assert row["beats_bound"] is False
    assert all(0.1 < point["software_efficiency"] < 0.6 for point in found["points"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'p'; it has no header"),
        ("p,o\n1,1\n", "no column 'seconds'; it has p, o"),
        (HEADER, "no points"),
        (HEADER + "1,1,fast\n", "line 2: seconds='fast': must be a positive number"),
        (HEADER + "1,1,0.1\n0,1,0.1\n", "line 3: p='0': must be a whole number"),
        (HEADER + "1,1\n", "line 2: no value in column 'seconds'"),
        (HEADER + "1,4,0.1\n8,4,0.2\n16,4,0.3\n", "every point has o=4"),
        (HEADER + "1,1,0.1\n8,4,0.2\n", "2 points for 3 constants"),
    ],
)
def test_a_bad_csv_is_one_line(command: Command, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    code, out, err = command(path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one source of points is needed"),
        (["--run", "latest", "--published", "ada"], "not --run and --published"),
        (["missing.csv"], "missing.csv: cannot be read: No such file"),
        (["--published", "gpt-5"], "no published runtime of 'gpt-5'"),
        (["--published", "ada", "--at", "12"], "--at '12': give P,O or P,O,B"),
        (["--published", "ada", "--at", "0,1"], "--at '0,1': each must be at least 1"),
        (["--published", "ada", "--at", "8,8,2"], "measured at batch 1 only"),
        (["--published", "ada", "--response", "joules"], "--published has seconds only"),
        (["--published", "ada", "--overhead", "1"], "is not above the overhead of 1"),
        (["--published", "ada", "--confidence", "1"], "must lie between 0 and 1"),
        (["--published", "ada", "--device", "a100"], "--device needs --model"),
        (["--published", "ada", "--model", "gpt2"], "--model needs --device"),
        (["--published", "ada", "--model", "gpt2", "--device", "abacus"], "abacus"),
        (["--published", "ada", "--model", "gpt-99", "--device", "nvidia-a100-sxm4-80gb"], "gpt-99"),
        (["--live", "gpt-5"], "no runnable model 'gpt-5'"),
        (["--live", "decoder-125m", "--precision", "int3"], "precision 'int3'"),
        (["--live", "decoder-125m", "--response", "usd"], "--live measures seconds only"),
    ],
)
def test_bad_arguments_are_one_line(command: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    code, out, err = command(*arguments, "--store", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert said in err


def test_a_run_without_model_steps_says_so(command: Command, tmp_path: Path) -> None:
    _, run_id = store_of(tmp_path, [])
    code, _, err = command("--run", run_id, "--model", "geb-1.3b", "--store", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = command("--run", run_id, "--store", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "no model steps with status ok" in err


@pytest.fixture
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no run on this host is waited for."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("RIDGELINE_CACHE", str(folder))


TINY = DecoderSize(
    name="tiny", layers=1, hidden=32, q_heads=2, kv_heads=1, ffn=48, vocabulary=64, tied=False, source="a test"
)


@pytest.mark.usefixtures("own_locks")
def test_a_live_model_is_timed_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    monkeypatch.setattr(live_requests, "MOST_TRIALS", 2)
    monkeypatch.setattr(live_requests, "_wait_until_quiet", lambda session, longest_s: None)
    live = build("tiny", "float32", choose_unit("cpu"))
    store = Store(tmp_path)
    requests = ((1, 1, 1), (4, 3, 2))
    run_id, records = measure_into(store, live, requests, trials=2, budget_s=60.0)
    assert store.run(run_id).state == "finished"
    assert [(r.prompt_tokens, r.output_tokens, r.batch) for r in records] == list(requests)
    for record in records:
        assert len(record.samples_s) >= 2  # more where others computed beside it
        assert record.error_relative is not None
        assert record.error_relative < 1e-5


@pytest.mark.usefixtures("own_locks")
def test_measuring_leaves_the_lock_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A paper's check runs in a worker whose supervisor holds the unit: asking for it again would wait for ever."""
    monkeypatch.setitem(SIZES, "tiny", TINY)
    monkeypatch.setattr(live_requests, "MOST_TRIALS", 1)
    live = build("tiny", "int8", choose_unit("cpu"))
    with held({live.unit.placement.unit}), live.unit.session() as session:
        found = measure(live, session, [(2, 2, 1)], trials=1, budget_s=10.0)
    assert len(found[2, 2, 1][0].steps_s) == 2


@pytest.mark.usefixtures("own_locks")
def test_a_disturbed_trial_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    live = build("tiny", "float32", choose_unit("cpu"))
    busy, idle = Observed(Conditions(load_other=0.6)), Observed(Conditions(load_other=0.0))
    # The first warms up, the last idle one confirms.
    script = itertools.chain([idle, busy, busy, idle, idle], itertools.repeat(busy))

    def scripted(self: object, request: tuple[int, int, int], session: object) -> Trial:
        return Trial((0.1,) * request[1], next(script))

    monkeypatch.setattr(type(live), "trial", scripted)
    monkeypatch.setattr(live_requests, "_wait_until_quiet", lambda session, longest_s: None)
    _, (record,) = measure_into(Store(tmp_path), live, [(2, 1, 1)], trials=1, budget_s=60.0)
    assert [left.block for left in record.left_out] == [0, 1]
    assert (record.status, len(record.samples_s)) == ("ok", 4)
    _, (spoilt,) = measure_into(Store(tmp_path), live, [(2, 1, 1)], trials=1, budget_s=1e-9)
    assert (spoilt.status, spoilt.reason) == ("timeout", "the time was over before its first trial")
    _, (spoilt,) = measure_into(Store(tmp_path), live, [(2, 1, 1)], trials=1, budget_s=0.5)
    assert (spoilt.status, spoilt.reason) == ("unstable", "every trial was disturbed: other processes")
