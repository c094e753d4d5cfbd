"""The documentation, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_adding_a_kernel_takes_the_one_file_of_the_document(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "add-a-kernel.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    folder = tmp_path / "my-kernels"
    folder.mkdir()
    (folder / "row_blocks.py").write_text(code.group(1), encoding="utf-8")
    suite = tmp_path / "mine.toml"
    suite.write_text(
        'name = "mine"\ndescription = "one"\n[settings]\nbudget_s = 0.5\ntarget_relative = 0.5\n'
        '[[case]]\noperator = "gemm"\nimplementations = ["row_blocks"]\n'
        'problems = [{ m = 130, n = 64, k = 96, precision = "float32" }]\ncache = ["warm"]\n',
        encoding="utf-8",
    )
    store = tmp_path / "store"
    command = [sys.executable, "-m", "ridgeline.bench.cli"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    options = {"capture_output": True, "text": True, "env": environment, "cwd": tmp_path, "timeout": 120}
    listed = subprocess.run(
        [*command, "list", "implementations", "--with", str(folder), "--json"], check=True, **options
    )
    assert any(i["implementation"] == "row_blocks" for i in json.loads(listed.stdout))
    done = subprocess.run(
        [*command, "run", str(suite), "--with", str(folder), "--store", str(store), "--json"], **options
    )
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["status"] in ("ok", "unstable"), record["reason"]
    assert record["error_relative"] <= record["error_tolerance"]
    # At most five lines beyond the kernel: the import, the decorator, the signature and the two returns of a closure.
    own = [line for line in code.group(1).splitlines() if line.strip() and not line.startswith('"""')]
    assert len(own) <= 12
