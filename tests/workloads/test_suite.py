"""Suites: sweeps, the line that a message names, and the suites that come with Ridgeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.workloads.suite import Settings, SuiteError, load_suite, parse_suite, shipped

HEAD = 'name = "s"\ndescription = "d"\n'


def message(text: str) -> str:
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "my.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lists_are_swept_and_scalars_are_not() -> None:
    suite = parse_suite(
        HEAD
        + """
[[case]]
operator = "gemm"
cache = ["cold", "warm"]
problems = [
    { m = [1, 2, 3], n = 8, k = [16, 32], precision = "float32" },
    { m = 7, n = 8, k = 9, precision = ["int8"] },
]
""",
        "my.toml",
    )
    shapes = [(c.problem.to_dict()["m"], c.problem.to_dict()["k"], c.cache) for c in suite.cases]
    swept = [(m, k, cache) for m in (1, 2, 3) for k in (16, 32) for cache in ("cold", "warm")]
    assert shapes == [*swept, (7, 9, "cold"), (7, 9, "warm")]
    assert [c.problem.to_dict()["precision"] for c in suite.cases] == ["float32"] * 12 + ["int8"] * 2


def test_defaults() -> None:
    suite = parse_suite(HEAD + '[[case]]\noperator = "gemm"\nproblems = [{m=1, n=1, k=1, precision="int8"}]', "my.toml")
    (case,) = suite.cases
    assert (case.cache, case.implementations, case.papers) == ("cold", None, ())
    assert case.where == "my.toml:4"
    assert not suite.roofs
    assert suite.settings == Settings()


CASE = """
[[case]]
operator = "gemm"
problems = [
    { m = 1, n = 8, k = 8, precision = "float32" }, # here
]
"""
UNMARKED = CASE.replace(" # here", "")

# Text, and what the message says; its line is the one that ends in "# here", or the first.
WRONG = {
    "unknown key": (HEAD + 'colour = "red" # here', "colour: unknown key: one of name, description, roofs"),
    "unknown setting": (HEAD + "[settings]\nbudget_s = 1.0\nbudget = 2 # here", "settings.budget: unknown key: one of"),
    "unknown key of a case": (
        HEAD + UNMARKED + UNMARKED + "shape = 3 # here",
        "case.2.shape: unknown key: one of operator",
    ),
    "no name": ('description = "d"', "name: is missing"),
    "no operator": (
        HEAD + UNMARKED.replace("[[case]]", "[[case]] # here").replace("operator", "papers"),
        "case.1.operator",
    ),
    "name that is a number": ('description = "d"\nname = 3 # here', "name: "),
    "negative budget": (HEAD + "[settings]\n\nbudget_s = -1 # here", "settings.budget_s: "),
    "endless budget": (HEAD + "[settings]\n\nbudget_s = inf # here", "settings.budget_s: "),
    "no processes": (HEAD + "[settings]\n# processes = 1\nprocesses = 0 # here", "settings.processes: "),
    "no problem": (HEAD + '[[case]]\noperator = "gemm"\nproblems = [] # here', "case.1.problems: "),
    "unknown cache": (HEAD + UNMARKED + UNMARKED + 'cache = ["tepid"] # here', "case.2.cache.1: "),
    "unknown operator": (
        HEAD + UNMARKED + UNMARKED.replace('"gemm"', '"gem" # here'),
        "case 2: operator: unknown operator 'gem'",
    ),
    "zero": (HEAD + CASE.replace("m = 1", "m = 0"), "case 1: m: must be at least 1, not 0"),
    "negative": (HEAD + CASE.replace("k = 8", "k = -8"), "k: must be at least 1, not -8"),
    "fraction": (HEAD + CASE.replace("k = 8", "k = 0.5"), "k: must be a whole number, not 0.5"),
    "unknown precision": (HEAD + CASE.replace("float32", "fp32"), "fp32"),
    "unknown parameter": (HEAD + CASE.replace("k = 8", "k = 8, z = 1"), "z: gemm has no such parameter; it takes m"),
    "missing parameter": (HEAD + CASE.replace("k = 8, ", ""), "k: gemm needs it"),
    "wrong in a sweep": (HEAD + CASE.replace("m = 1", "m = [1, 0]"), "m: must be at least 1, not 0"),
    "empty sweep": (HEAD + CASE.replace("m = 1", "m = []"), "m: an empty list makes no problem"),
    "list in a list": (HEAD + CASE.replace("m = 1", "m = [[1]]"), "m: must be a whole number, not [1]"),
    "second case": (HEAD + UNMARKED + CASE.replace("m = 1", "m = 0"), "case 2: m: must be at least 1"),
    "second problem": (
        HEAD + UNMARKED.replace("},", '},\n { m = 0, n = 8, k = 8, precision = "float32" }, # here'),
        "m: must be at least 1",
    ),
    "problem as a table": (
        HEAD + '[[case]]\noperator = "gemm"\n[[case.problems]]\nm = 1\nn = 1\nk = 1\nprecision = "int8"\n'
        '[[case.problems]]\nm = 1\nn = 1\nk = 0 # here\nprecision = "int8"',
        "case 1: k: must be at least 1",
    ),
    "heads that do not divide": (
        HEAD
        + '[[case]]\noperator = "attention"\nproblems = [\n'
        + "  { batch = 1, q_heads = 12, kv_heads = 5, q_length = 8, kv_length = 8, head_dim = 64 }, # here\n]",
        "heads",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_line(name: str) -> None:
    text, part = WRONG[name]
    line = next((i for i, line in enumerate(text.splitlines(), 1) if line.endswith("# here")), 1)
    said = message(text)
    assert said.startswith(f"my.toml:{line}: "), said
    assert part in said


def test_text_that_is_no_toml_is_refused_with_its_line() -> None:
    said = message(HEAD + "roofs = yes\n")
    assert said.startswith("my.toml:")
    assert "line 3" in said


def test_a_suite_of_nothing_is_refused() -> None:
    assert "nothing to measure" in message(HEAD)
    assert parse_suite(HEAD + "roofs = true\n", "my.toml").cases == ()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_suites_load(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description
    assert suite.cases


def test_a_file_is_the_same_suite_as_the_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(shipped()["quick"].read_text(encoding="utf-8"), encoding="utf-8")
    assert [c.problem for c in load_suite(str(path)).cases] == [c.problem for c in load_suite("quick").cases]


def test_unknown_name_and_unreadable_files(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for name, part in (
        ("quack", "unknown suite 'quack': one of "),
        (str(tmp_path / "none.toml"), "none.toml: cannot be read: No such file"),
        (str(tmp_path) + "/", "cannot be read: Is a directory"),
        (str(binary), "binary.toml: cannot be read"),
    ):
        with pytest.raises(SuiteError) as caught:
            load_suite(name)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
