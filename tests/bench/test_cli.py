"""The command line: bad input is one line and exit code 2, JSON is one document, torch is needed only to measure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ridgeline_process import Run

from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.measurement import Measurement

HEAD = 'name = "tiny"\ndescription = "d"\n[settings]\nbudget_s = 0.1\n'
GEMM = """
[[case]]
operator = "gemm"
implementations = ["torch"]
cache = ["warm"]
problems = [{ m = 2, n = 16, k = 16, precision = "float32" }]
"""
HEADS = "batch = 1, q_heads = 12, kv_heads = 5, q_length = 8, kv_length = 8, head_dim = 64"

# Suite, and what the one line holds.
BAD_HEADS = f'[[case]]\noperator = "attention"\nproblems = [{{ {HEADS} }}]\n'
BAD_OPERATOR = GEMM.replace('"gemm"', '"gem"')
BAD_SUITES = {
    "not TOML": ("name = \n", "line 1"),
    "unknown key": (HEAD + "colour = 1\n", "suite.toml:5: settings.colour: unknown key: one of target_relative"),
    "bad value": (HEAD.replace("0.1", "-1"), "suite.toml:4: settings.budget_s: Input should be greater than 0"),
    "zero": (HEAD + GEMM.replace("m = 2", "m = 0"), "suite.toml:10: case 1: m: must be at least 1, not 0"),
    "negative": (HEAD + GEMM.replace("m = 2", "m = -2"), "suite.toml:10: case 1: m: must be at least 1, not -2"),
    "heads": (HEAD + BAD_HEADS, "suite.toml:7: case 1: kv_heads: must divide q_heads"),
    "unknown operator": (HEAD + BAD_OPERATOR, "suite.toml:7: case 1: operator: unknown operator 'gem'"),
    "unknown implementation": (HEAD + GEMM.replace("torch", "tosh"), "unknown implementation 'tosh' of gemm: one of "),
    "too large": (
        HEAD + GEMM.replace("m = 2, n = 16, k = 16", "m = 9000000, n = 9000000, k = 16"),
        "needs 324001.2 GB, this unit has ",
    ),
    "nothing": (HEAD, "suite.toml: nothing to measure"),
}


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command said before it ended with 2."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("ridgeline: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def measured(started_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run, and the JSON that the run printed beside it."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "suite.toml").write_text(HEAD + GEMM)
    done = started_command("run", folder / "suite.toml", "--store", folder / "store", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "run.json").write_text(done.stdout)
    return folder / "store"


@pytest.mark.parametrize("name", BAD_SUITES)
def test_a_bad_suite_is_refused_in_one_line(ridgeline_command: Run, tmp_path: Path, name: str) -> None:
    text, part = BAD_SUITES[name]
    (tmp_path / "suite.toml").write_text(text)
    said = refused(ridgeline_command("run", tmp_path / "suite.toml", "--store", tmp_path / "store"))
    assert part in said
    assert not (tmp_path / "store").exists()


def test_a_refusal_is_the_same_from_a_shell(started_command: Run, tmp_path: Path) -> None:
    text, part = BAD_SUITES["zero"]
    (tmp_path / "suite.toml").write_text(text)
    assert part in refused(started_command("run", tmp_path / "suite.toml", "--store", tmp_path / "store"))
    assert "Error" in started_command("frobnicate").stderr


def bad_arguments(folder: Path) -> dict[str, tuple[list[str], str]]:
    (folder / "good.toml").write_text(HEAD + GEMM)
    (folder / "file").write_text("")
    for name, text in (
        ("broken", "def (:\n"),
        ("raises", "raise RuntimeError('no\\nluck')\n"),
        ("needs", "import nix\n"),
    ):
        (folder / name).mkdir()
        (folder / name / "kernel.py").write_text(text)
    good = str(folder / "good.toml")
    return {
        "unknown suite": (["run", "quack"], "unknown suite 'quack': one of attention, collectives, "),
        "no such file": (["run", "no/such.toml"], "no/such.toml: cannot be read: No such file or directory"),
        "unknown operator": (["run", good, "--only", "gem"], "--only: unknown operator 'gem': one of all_reduce, "),
        "operator of no case": (["run", good, "--only", "attention"], "suite tiny has no case of attention"),
        "with a file": (["run", good, "--with", str(folder / "file")], "file: not a folder"),
        "with nothing": (["run", good, "--with", str(folder / "none")], "none: not a folder"),
        "with a broken file": (["run", good, "--with", str(folder / "broken")], "kernel.py: SyntaxError: "),
        "with a file that raises": (
            ["list", "operators", "--with", str(folder / "raises")],
            "kernel.py: RuntimeError: no",
        ),
        "with an import": (
            ["run", good, "--with", str(folder / "needs")],
            "kernel.py: ModuleNotFoundError: No module named 'nix'",
        ),
        "unknown list": (["list", "kernels"], "cannot list 'kernels': one of operators, implementations, devices"),
        "store is a file": (["show", "--store", str(folder / "file")], "file: not a folder: choose another store"),
        "store is a file, run": (
            ["run", good, "--store", str(folder / "file")],
            "file: not a folder: choose another store",
        ),
        "store below a file": (
            ["run", good, "--store", str(folder / "file" / "below")],
            "not a folder: choose another",
        ),
        "unknown run": (
            ["show", "20200101", "--store", str(folder / "none")],
            "none: no runs yet: `ridgeline run` makes one",
        ),
    }


BAD_ARGUMENTS = (
    "unknown suite", "no such file", "unknown operator", "operator of no case", "with a file", "with nothing",
    "with a broken file", "with a file that raises", "with an import", "unknown list", "store is a file",
    "store is a file, run", "store below a file", "unknown run",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_in_one_line(ridgeline_command: Run, tmp_path: Path, name: str) -> None:
    arguments, part = bad_arguments(tmp_path)[name]
    before = sorted(tmp_path.rglob("*"))
    store = [] if "--store" in arguments or arguments[0] == "list" else ["--store", str(tmp_path / "store")]
    assert part in refused(ridgeline_command(*arguments, *store))
    assert [p for p in sorted(tmp_path.rglob("*")) if "__pycache__" not in p.parts] == before


@pytest.mark.parametrize("arguments", [["run"], ["frobnicate"], ["show", "--colour"], ["run", "quick", "--only"]])
def test_wrong_usage_ends_with_2(ridgeline_command: Run, arguments: list[str]) -> None:
    done = ridgeline_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error" in done.stderr


def test_a_store_that_may_not_be_read_or_written(ridgeline_command: Run, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "good.toml").write_text(HEAD + GEMM)
    store = tmp_path / "store"
    store.mkdir(mode=0)
    try:
        for arguments in (["show"], ["run", tmp_path / "good.toml"]):
            assert "choose another store" in refused(ridgeline_command(*arguments, "--store", store))
    finally:
        store.chmod(0o700)


def damage(store: Path, how: str) -> str:
    """Damage the only run of a store; returns its id."""
    (run,) = (store / "runs").iterdir()
    records = run / "records.parquet"
    if how == "truncated":
        records.write_bytes(records.read_bytes()[:-100])
    elif how == "newer manifest":
        manifest = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    else:
        table = pq.read_table(records)
        index = table.schema.get_field_index("schema_version")
        newer = table.set_column(index, table.schema.field(index), [[99] * len(table)])
        pq.write_table(newer, records)
    return run.name


@pytest.mark.parametrize("how", ["truncated", "newer manifest", "newer records"])
def test_a_damaged_run_is_one_line(ridgeline_command: Run, measured: Path, tmp_path: Path, how: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(measured, store)
    run = damage(store, how)
    part = (
        f"newer than this Ridgeline reads ({SCHEMA_VERSION}): upgrade ridgeline"
        if "newer" in how
        else "records.parquet: "
    )
    said = refused(ridgeline_command("show", run, "--store", store))
    assert part in said
    assert run in said
    # Of a whole store the rest is shown, and the damage is named.
    done = ridgeline_command("show", "--store", store, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
    (listed,) = json.loads(ridgeline_command("list", "runs", "--store", store, "--json").stdout)
    assert listed["run_id"] == run
    if how != "newer records":  # counting does not read them
        assert (listed["state"], part in listed["reason"]) == ("damaged", True)


def test_what_a_run_prints_as_json_is_what_show_prints(
    ridgeline_command: Run, started_command: Run, measured: Path
) -> None:
    printed = json.loads((measured.parent / "run.json").read_text())
    assert len(printed) == 1
    shown = started_command("show", "latest", "--store", measured, "--json")
    assert json.loads(shown.stdout) == printed
    assert shown.stderr == ""
    fields = set(Measurement.model_fields)
    assert fields <= set(printed[0])
    assert printed[0]["status"] in ("ok", "unstable")
    # A unique start of the id is enough.
    start = printed[0]["run_id"][:-2]
    assert json.loads(ridgeline_command("show", start, "--store", measured, "--json").stdout) == printed


def test_the_store_is_taken_from_the_environment(ridgeline_command: Run, measured: Path) -> None:
    done = ridgeline_command("show", "--json", RIDGELINE_STORE=str(measured))
    assert len(json.loads(done.stdout)) == 1


def test_tables_are_for_people(ridgeline_command: Run, measured: Path) -> None:
    done = ridgeline_command("show", "--store", measured)
    assert done.returncode == 0
    assert "2x16x16 float32" in done.stdout
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(done.stdout)


@pytest.mark.parametrize("what", ["operators", "implementations", "devices", "suites", "runs"])
def test_lists_as_json_and_as_a_table(ridgeline_command: Run, started_command: Run, measured: Path, what: str) -> None:
    done = started_command("list", what, "--store", measured, "--json")
    rows = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    table = ridgeline_command("list", what, "--store", measured)
    assert table.returncode == 0
    assert str(next(iter(rows[0].values()))) in table.stdout


def test_an_empty_store_is_no_error(ridgeline_command: Run, tmp_path: Path) -> None:
    store = tmp_path / "none"
    assert json.loads(ridgeline_command("show", "--store", store, "--json").stdout) == []
    assert json.loads(ridgeline_command("list", "runs", "--store", store, "--json").stdout) == []
    assert "ridgeline run quick" in ridgeline_command("show", "--store", store).stdout
    assert "no runs" in ridgeline_command("list", "runs", "--store", store).stdout
    assert not store.exists()


def test_doctor_as_json_and_as_a_table(ridgeline_command: Run, started_command: Run) -> None:
    done = started_command("doctor", "--json")
    findings = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    for finding in findings:
        assert finding["state"] in ("ok", "missing", "warning")
        assert finding["detail"]
    assert {"processor", "C++ compiler", "kernel packages", "GPU", "NVML", "energy meter", "noise", "store"} <= {
        finding["what"] for finding in findings
    }
    assert "processor" in ridgeline_command("doctor").stdout


def test_the_schema_of_a_record(ridgeline_command: Run) -> None:
    schema = json.loads(ridgeline_command("show", "--schema").stdout)
    assert set(schema["$defs"]["Measurement"]["properties"]) == set(Measurement.model_fields)


def test_help_is_light(environment: dict[str, str]) -> None:
    heavy = ("torch", "pandas", "streamlit", "pyarrow", "scipy", "numpy", "duckdb", "pydantic")
    code = (
        "import sys\nfrom ridgeline.bench import cli\nsys.argv = ['ridgeline', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('loaded:', *[name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
    for verb in ("run", "show", "list", "roofs", "doctor", "dashboard"):
        assert f"  {verb} " in done.stdout


def test_without_torch_all_but_measuring_works(without_torch: Run, measured: Path) -> None:
    for arguments in (
        ["show", "--store", measured, "--json"],
        ["list", "suites", "--json"],
        ["list", "runs", "--store", measured, "--json"],
        ["list", "devices", "--json"],
    ):
        done = without_torch(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert json.loads(done.stdout)


def test_without_torch_a_list_of_kernels_names_what_is_left_out(without_torch: Run) -> None:
    done = without_torch("list", "implementations", "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert "left out: " in done.stderr
    assert "gemm.torch_matmul" in done.stderr
    for package in ("torch", "numba"):
        assert f": needs {package}: pip install 'ridgeline[run]'\n" in done.stderr


def test_without_torch_the_doctor_says_what_to_install(without_torch: Run) -> None:
    done = without_torch("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    for what in ("kernel packages", "GPU"):
        assert (found[what]["state"], found[what]["remedy"]) == ("missing", "pip install 'ridgeline[run]'")


def test_without_torch_measuring_says_what_to_install(without_torch: Run, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(HEAD + GEMM)
    store = tmp_path / "store"
    for arguments in (["run", "quick"], ["run", tmp_path / "suite.toml"], ["roofs"]):
        said = refused(without_torch(*arguments, "--store", store))
        assert said == "ridgeline: this command runs kernels and needs torch: pip install 'ridgeline[run]'\n"
    assert not store.exists()


def test_a_suite_without_native_kernels_needs_no_compiler(ridgeline_command: Run, tmp_path: Path) -> None:
    bare = {"CXX": "no-such-compiler", "RIDGELINE_CACHE": str(tmp_path / "cache")}
    run = ["run", tmp_path / "suite.toml", "--store", tmp_path / "store", "--json"]
    (tmp_path / "suite.toml").write_text(HEAD + GEMM)
    done = ridgeline_command(*run, **bare)
    assert done.returncode == 0, done.stderr
    (tmp_path / "suite.toml").write_text("roofs = true\n" + HEAD + GEMM)
    assert "no C++ compiler found: install g++" in refused(ridgeline_command(*run, **bare))
