"""What a user installs: the wheel holds what git tracks, lives beside other packages, and works without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= options.pop("env", {})  # type: ignore[arg-type]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks, so that no stray file of this checkout gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    archive = source / "tree.tar"
    done = run("git", "-C", str(ROOT), "ls-files", "-z", "--cached")
    assert done.returncode == 0, done.stderr
    listing = source / "files"
    listing.write_text(done.stdout)
    run("tar", "-C", str(ROOT), "--null", "-T", str(listing), "-cf", str(archive))
    run("tar", "-C", str(source), "-xf", str(archive))
    done = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source))
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_wheel_holds_exactly_the_tracked_package_files(wheel: Path) -> None:
    tracked = run("git", "-C", str(ROOT), "ls-files", "src/ridgeline").stdout.split()
    packed = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    assert sorted(packed) == sorted(name.removeprefix("src/") for name in tracked)


def test_installs_beside_hugging_face_kernels(wheel: Path, tmp_path: Path) -> None:
    """Both put a package into the same folder; neither may overwrite the other. What theirs needs is of no concern."""
    for what in ("kernels", str(wheel)):
        done = run(
            sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--no-deps", "--target", str(tmp_path), what
        )
        assert done.returncode == 0, done.stderr
    code = (
        "import ridgeline.kernels as ours; from importlib.util import find_spec\n"
        "print(find_spec('kernels').origin, ours.__file__)"
    )
    done = run(sys.executable, "-P", "-c", code, env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs, ours = done.stdout.split()
    assert Path(theirs).parent == tmp_path / "kernels"
    assert Path(ours).parent == tmp_path / "ridgeline" / "kernels"
    for package in ("kernels", "ridgeline"):
        (distribution,) = metadata.distributions(name=package, path=[str(tmp_path)])
        assert distribution.files
        assert all(file.locate().exists() for file in distribution.files if file.parts[0] != "..")


def needed(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """What these requirements ask for, and what that asks for in turn, extras left out: as pip resolves them."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found[name] = metadata.distribution(name)
            assert requirement.specifier.contains(found[name].version, prereleases=True), requirement
            waiting += [Requirement(text) for text in found[name].requires or []]
    return found


@pytest.fixture(scope="module")
def without_torch(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and its base dependencies, and nothing else.

    They are those of this environment, linked: what the wheel does not ask for is not there.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = str(folder / "bin" / "python")
    # What is used is compiled when it is imported: compiling all of it takes longer than installing it.
    pip = [sys.executable, "-m", "pip", "--python", python]
    done = run(*pip, "install", "-q", "--no-compile", "--no-deps", str(wheel))
    assert done.returncode == 0, done.stderr
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    (ours,) = metadata.distributions(name="ridgeline", path=[str(site)])
    for distribution in needed(ours.requires or []).values():
        for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(distribution.locate_file(name))))
    assert run(python, "-c", "import torch").returncode != 0
    return folder / "bin"


def test_base_install_works_without_torch(without_torch: Path, tmp_path: Path) -> None:
    python, command = str(without_torch / "python"), str(without_torch / "ridgeline")
    assert run(python, "-c", "import ridgeline.analytical, ridgeline.results", cwd=tmp_path).returncode == 0
    shown = run(command, "show", "--json", cwd=tmp_path)
    assert (shown.returncode, shown.stdout.strip()) == (0, "[]"), shown.stderr
    listed = run(command, "list", "suites", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert '"quick"' in listed.stdout
    refused = run(command, "run", "quick", cwd=tmp_path)
    assert refused.returncode == 2
    assert "pip install 'ridgeline[run]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_dashboard_serves_without_torch(without_torch: Path, tmp_path: Path) -> None:
    import socket
    import time
    import urllib.error
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [str(without_torch / "ridgeline"), "dashboard", "--port", str(port)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                    assert answer.read() == b"ok"
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server did not answer"
                time.sleep(0.2)
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=20)


def test_help_is_quick_to_import() -> None:
    """`ridgeline --help` loads nothing heavy, which is what keeps it under 0.3 s; no test asserts a time."""
    code = (
        "import sys; sys.argv = ['ridgeline', '--help']\n"
        "from ridgeline.bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'triton', 'numba', 'pandas', 'pyarrow', 'duckdb', 'scipy', 'numpy', 'streamlit', 'plotly'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = run(sys.executable, "-c", code, env={"PYTHONPATH": str(ROOT / "src")})
    assert "Measure inference kernels" in done.stdout
    assert done.stderr.strip() == "[]"
