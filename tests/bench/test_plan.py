"""The plan: identities that are stable, keys that change with every source a kernel reaches, and the order."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ridgeline_process import SOURCE

from ridgeline.bench.devices.cpu import detect
from ridgeline.bench.plan import Plan, make_plan
from ridgeline.kernels import registry
from ridgeline.kernels.registry import get_implementation
from ridgeline.results.sources import reached, source_hash
from ridgeline.workloads.suite import SuiteError, parse_suite

registry.load()
CPU = detect()
SUITE = """
name = "s"
description = "d"
[settings]
budget_s = {budget_s}
processes = {processes}
[[case]]
operator = "gemm"
implementations = ["torch", "numba"]
cache = ["cold", "warm"]
papers = {papers}
problems = [{{ m = [1, 2, 3, 4], n = 8, k = [8, 16], precision = "float32" }}]
"""


def plan(budget_s: float = 1.0, processes: int = 1, papers: str = "[]", only: Sequence[str] = ()) -> Plan:
    suite = parse_suite(SUITE.format(budget_s=budget_s, processes=processes, papers=papers), "s.toml")
    return make_plan(suite, CPU, only=only)


def test_case_ids_are_stable_and_distinct() -> None:
    first, second = plan(), plan()
    ids = [case.case_id for case in first.cases]
    assert len(set(ids)) == len(ids) == 4 * 2 * 2 * 2
    assert ids == [case.case_id for case in second.cases]
    # The budget, the papers and the number of processes are no part of what is measured.
    other = plan(budget_s=2.0, processes=5, papers='["flashsigmoid"]')
    assert ids == [case.case_id for case in other.cases]


def test_case_ids_do_not_depend_on_the_process(environment: dict[str, str]) -> None:
    code = (
        "from ridgeline.analytical.operators import Gemm\n"
        "from ridgeline.bench.plan import Case\n"
        "from ridgeline.kernels.registry import Implementation\n"
        "from ridgeline.results.measurement import Placement, Protocol\n"
        "from pathlib import Path\n"
        "i = Implementation('gemm', 'x', print, frozenset(), frozenset(), (), Path('x'))\n"
        "print(Case(Gemm(m=1, n=2, k=3, precision='int8'), i, Placement(device='d', torch_device='cpu', unit='u'),"
        " Protocol(timer='perf_counter', cache='cold', threads=1, version=1)).case_id)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_every_part_of_a_case_is_in_its_id() -> None:
    case = plan().cases[0]
    others = [
        dataclasses.replace(case, problem=plan().cases[-1].problem),
        dataclasses.replace(case, implementation=get_implementation("gemm", "numba")),
        dataclasses.replace(case, placement=case.placement.model_copy(update={"unit": "another"})),
        *(
            dataclasses.replace(case, protocol=case.protocol.model_copy(update=change))
            for change in ({"cache": "warm"}, {"threads": 77}, {"version": 99}, {"timer": "sundial"})
        ),
    ]
    assert len({case.case_id, *(other.case_id for other in others)}) == len(others) + 1


def test_a_case_that_a_suite_names_twice_is_measured_once() -> None:
    text = SUITE.format(budget_s=1.0, processes=1, papers="[]")
    twice = parse_suite(text + text[text.index("[[case]]") :], "s.toml")
    assert len(make_plan(twice, CPU).cases) == len(plan().cases)


def test_the_digest_is_that_of_the_command() -> None:
    assert plan().digest == plan().digest
    suite = parse_suite(SUITE.format(budget_s=1.0, processes=1, papers="[]"), "s.toml")
    digests = {
        plan().digest,
        plan(budget_s=2.0).digest,
        plan(processes=2).digest,
        make_plan(suite, CPU, with_folders=["/somewhere"]).digest,
        make_plan(dataclasses.replace(suite, name="t"), CPU).digest,
        make_plan(dataclasses.replace(suite, cases=suite.cases[1:]), CPU).digest,
    }
    assert len(digests) == 6


def test_the_order_is_a_shuffle_that_a_run_can_be_continued_in() -> None:
    made = plan(processes=3)
    orders = [[case.case_id for case in made.order(process)] for process in range(3)]
    written = [case.case_id for case in made.cases]
    assert all(sorted(order) == sorted(written) for order in orders)
    assert len({tuple(order) for order in (*orders, written)}) == 4
    again = plan(processes=3)
    assert orders == [[case.case_id for case in again.order(process)] for process in range(3)]
    assert made.planned == 3 * len(written)


def test_only_keeps_operators_and_names_those_that_are_not_there() -> None:
    assert len(plan(only=["gemm"]).cases) == len(plan().cases)
    with pytest.raises(SuiteError, match="suite s has no case of attention"):
        plan(only=["attention"])
    with pytest.raises(SuiteError, match="--only: unknown operator 'gem': one of "):
        plan(only=["gem"])


COLLECTIVE = """
name = "s"
description = "d"
[[case]]
operator = "all_reduce"
problems = [{{ elements = {elements}, precision = "float32", ranks = {ranks} }}]
threads = {threads}
"""


def collectives(ranks: str, elements: int = 1000, threads: str = "[]", have: int = 8) -> Plan:
    text = COLLECTIVE.format(ranks=ranks, elements=elements, threads=threads)
    return make_plan(parse_suite(text, "s.toml"), dataclasses.replace(CPU, threads=have))


def test_a_collective_is_placed_on_as_many_ranks_as_it_has() -> None:
    cases = collectives("[1, 2, 3]").cases
    assert [(c.placement.ranks, c.protocol.threads) for c in cases] == [(1, 8), (2, 4), (3, 2)]
    # One host, so one unit; and one rank is placed as it always was.
    assert {case.placement.unit for case in cases} == {CPU.placement.unit}
    assert cases[0].placement == CPU.placement
    swept = collectives("2", threads="[1, 4, 8]").cases
    assert [case.protocol.threads for case in swept] == [1, 4]


def test_a_placement_that_cannot_be_is_refused() -> None:
    with pytest.raises(SuiteError, match=r"s.toml:5: .* x 9: 9 ranks need a processor each: .* has 8$"):
        collectives("9")
    with pytest.raises(SuiteError, match=r"s.toml:5: threads: 8: .* has 4 for each rank"):
        collectives("2", threads="[8]")
    fits = int(0.4 * CPU.device.main_memory.capacity_bytes / 8)
    assert collectives("2", elements=fits).cases
    with pytest.raises(SuiteError, match=r"needs .* GB, this unit has .* GB: make the shape smaller"):
        collectives("3", elements=fits)


KERNEL = """
import torch
import tiles
from ridgeline.kernels.registry import implementation
def prepare():
    import {module}
"""


def kernel(folder: Path, module: str = "ridgeline.analytical.work") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(KERNEL.format(module=module))
    (folder / "tiles.py").write_text("import shapes\n")
    (folder / "shapes.py").write_text("M = 1\n")
    (folder / "unrelated.py").write_text("M = 1\n")
    return folder / "mine.py"


def test_a_hash_reaches_what_a_kernel_imports_and_no_more(tmp_path: Path) -> None:
    mine = kernel(tmp_path / "k")
    before = source_hash(mine)
    assert source_hash(mine) == before
    (tmp_path / "k" / "unrelated.py").write_text("M = 2\n")
    assert source_hash(mine) == before
    hashes = {before}
    for changed in ("mine.py", "tiles.py", "shapes.py"):
        path = tmp_path / "k" / changed
        path.write_text(path.read_text() + "# changed\n")
        hashes.add(source_hash(mine))
    assert len(hashes) == 4
    # Also an import that a change brings in within the same process.
    (tmp_path / "k" / "shapes.py").write_text("import unrelated\n")
    with_import = source_hash(mine)
    (tmp_path / "k" / "unrelated.py").write_text("M = 3\n")
    assert source_hash(mine) != with_import


def test_a_hash_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    assert source_hash(kernel(tmp_path / "a")) == source_hash(kernel(tmp_path / "z"))


def test_what_shipped_kernels_reach() -> None:
    files = reached(get_implementation("stream", "native").path)
    names = {file.name for file in files}
    assert {"native.py", "registry.py", "work.py", "build.py", "stream.cpp", "stream_loops.h", "isa.h"} <= names
    assert not {file for file in files if "gemm" in file.parts or "bench" in file.parts}
    gemm = {file.name for file in reached(get_implementation("gemm", "torch").path)}
    assert "torch_matmul.py" in gemm
    assert "stream.cpp" not in gemm


CHANGES = {
    "kernels/stream/native.py": True,
    "kernels/native/stream.cpp": True,
    "kernels/native/isa.h": True,
    "kernels/registry.py": True,
    "analytical/work.py": True,
    "kernels/gemm/torch_matmul.py": False,
    "bench/timing.py": False,
    "results/store.py": False,
}


def test_a_key_changes_with_each_source_it_reaches_in_a_copy_of_the_package(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    shutil.copytree(SOURCE / "ridgeline", tmp_path / "ridgeline", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import ridgeline, sys\nfrom pathlib import Path\nfrom ridgeline.results.sources import source_hash\n"
        "root = Path(ridgeline.__file__).parent\n"
        "assert str(root).startswith(sys.argv[1])\n"
        "print(source_hash(root / 'kernels/stream/native.py'))\n"
        "for name in sys.argv[2:]:\n"
        "    file = root / name\n"
        "    text = file.read_bytes()\n"
        "    file.write_bytes(text + b'\\n')\n"
        "    print(source_hash(root / 'kernels/stream/native.py'))\n"
        "    file.write_bytes(text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *CHANGES],
        env={**environment, "PYTHONPATH": str(tmp_path)},
        cwd=os.sep,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    before, *after = done.stdout.split()
    assert {name: key != before for name, key in zip(CHANGES, after, strict=True)} == CHANGES
    # The copy is the same code at another place.
    assert before == source_hash(SOURCE / "ridgeline" / "kernels" / "stream" / "native.py")
