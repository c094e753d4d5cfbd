"""All native code under AddressSanitizer and UndefinedBehaviorSanitizer; the last line says PASS or FAIL.

Every ``kernels/native/*.cpp`` is built with both (``RIDGELINE_NATIVE_SANITIZE``), and a pytest process that loads
libasan first runs the tests of the native package and every native implementation against its reference. It fails where
a sanitizer reports, a test fails, a source was never loaded, or errors that are planted for the purpose are not
reported. Leaks are not looked for: Python itself does not free everything at its end.

    python tests/kernels/native/run_sanitized.py [PYTEST ARGUMENT ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ridgeline.kernels.native import build

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1]
SEEN = "RIDGELINE_SANITIZED_SEEN"
"""Environment variable: the file to which the pytest process writes the libraries that it loaded."""
NOT_RUN = ("test_native_build.py", "test_native_sanitizers.py")
"""They test the building of sources of their own."""
SUPPRESSED_LINES = 60
"""Lines of a sanitizer's report that are printed; the first ones say what and where."""

PLANTED = """
#include <cstdint>
#include <vector>
extern "C" float element(int64_t count, int64_t i) {
    std::vector<float> values(count, 1.0f);
    return values.data()[i];
}
extern "C" int32_t doubled(int32_t value) { return value + value; }
"""


class NoSanitizersError(RuntimeError):
    """The compiler has none that a process can load. One line."""


def environment(reports: Path) -> dict[str, str]:
    """Of a process that loads sanitized libraries; reports go to files that begin with ``reports``.

    Raises:
        NoSanitizersError: where the compiler's libasan is not found.
        NativeBuildError: where there is no compiler.
    """
    # libstdc++ too: libasan looks for its __cxa_throw when it starts, and torch throws.
    preload = [_runtime("libasan.so"), _runtime("libstdc++.so")]
    options = f"detect_leaks=0:exitcode=99:halt_on_error=1:print_stacktrace=1:log_path={reports}"
    return {
        **os.environ,
        build.SANITIZE: "1",
        "LD_PRELOAD": " ".join(preload),
        # Freed memory is kept from reuse for a while, which finds reads of it; 64 MB of it, not 256.
        "ASAN_OPTIONS": f"{options}:quarantine_size_mb=64:allocator_may_return_null=1",
        "UBSAN_OPTIONS": options,
        "PYTHONPATH": os.pathsep.join([str(Path(build.__file__).parents[3]), str(HERE), *filter(None, sys.path)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _runtime(name: str) -> str:
    command = [*build.compiler(), f"-print-file-name={name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()
    if not os.path.isabs(found) or not os.path.exists(found):
        raise NoSanitizersError(f"{command[0]} has no {name}: use g++ with its sanitizers (Debian: libasan)")
    return os.path.realpath(found)


def reported(reports: Path) -> str:
    """What the sanitizers wrote; empty for nothing."""
    return "".join(path.read_text(errors="replace") for path in sorted(reports.parent.glob(f"{reports.name}.*")))


def planted(call: str, arguments: Sequence[int], folder: Path, cache: Path) -> tuple[int, str, str]:
    """Exit code, output and report of a process that calls a function of ``PLANTED``, built with the sanitizers."""
    (folder / "planted.cpp").write_text(PLANTED)
    reports = folder / f"report-{call}-{'-'.join(map(str, arguments))}"
    settings = {**environment(reports), "RIDGELINE_CACHE": str(cache)}
    # Built by a process without libasan: the compiler's own memory is none of our business.
    built = {key: value for key, value in settings.items() if key != "LD_PRELOAD"}
    program = (
        "import sys; from pathlib import Path; from ridgeline.kernels.native import build;"
        "folder, call, *values = sys.argv[1:];"
        "build.library('planted', Path(folder)) if call == 'build' else"
        " print(getattr(build.load('planted', Path(folder)), call)(*map(int, values)))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    subprocess.run([*command, "build"], env=built, check=True, timeout=300)
    done = subprocess.run(
        [*command, call, *map(str, arguments)], env=settings, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, reported(reports) + done.stderr


# ---- in the pytest process, as a plugin ----


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests of all implementations keep those of native ones."""
    from ridgeline.results.sources import reached

    kept, left = [], []
    for item in items:
        if item.path.name == "test_implementations.py":
            call = getattr(item, "callspec", None)
            implementation = call.params.get("implementation") if call is not None else None
            native = implementation is not None and any(p.suffix == ".cpp" for p in reached(implementation.path))
            (kept if native else left).append(item)
        else:
            kept.append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def pytest_sessionfinish() -> None:
    """Say which libraries this process has."""
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    Path(os.environ[SEEN]).write_text("\n".join(sorted(mapped)))


# ---- the command ----


def test_files() -> list[Path]:
    """Tests that call native code themselves, and those of all implementations."""
    files = [path for path in sorted((TESTS / "kernels").rglob("test_*.py")) if path.name not in NOT_RUN]
    return [path for path in files if path.name == "test_implementations.py" or "kernels.native" in path.read_text()]


def main(arguments: Sequence[str]) -> int:
    """Build, plant, run, look; 0 where everything is clean."""
    began = time.monotonic()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            settings = environment(folder / "report")
        except (NoSanitizersError, build.NativeBuildError) as error:
            print(f"{error}\nFAIL")
            return 1
        os.environ[build.SANITIZE] = "1"
        sources = sorted(path.stem for path in build.FOLDER.glob("*.cpp"))
        libraries = {}
        for source in sources:
            start = time.monotonic()
            libraries[source] = str(build.library(source).resolve())
            print(
                f"built {source}.cpp with {' '.join(build.flags()[:3])} in {time.monotonic() - start:.0f} s", flush=True
            )
        for call, values, says in (("element", (8, 8), "heap-buffer-overflow"), ("doubled", (2**30,), "overflow")):
            code, _, report = planted(call, values, folder, folder / "cache")
            found = code != 0 and says in report
            print(f"planted {call}{values}: {'reported' if found else 'NOT REPORTED'} ({says})", flush=True)
            if not found:
                failures.append(f"a planted {says} was not reported")
        files = test_files()
        print("running", *(str(path.relative_to(TESTS.parent)) for path in files), "(leak detection off)", flush=True)
        failures += run_tests(files, arguments, {**settings, SEEN: str(folder / "seen")}, folder, libraries)
    for failure in failures:
        print(failure)
    print(f"{len(sources)} native sources, {time.monotonic() - began:.0f} s\n{'FAIL' if failures else 'PASS'}")
    return 1 if failures else 0


def run_tests(
    files: Sequence[Path],
    arguments: Sequence[str],
    settings: Mapping[str, str],
    folder: Path,
    libraries: Mapping[str, str],
) -> list[str]:
    """What went wrong in the pytest process, a line each."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "run_sanitized", *arguments, *map(str, files)]
    done = subprocess.run(command, env=settings, cwd=TESTS.parent, check=False)
    failures = [] if done.returncode == 0 else [f"pytest exited with code {done.returncode}"]
    if report := reported(folder / "report"):
        print("\n".join(report.splitlines()[:SUPPRESSED_LINES]))
        failures.append("a sanitizer reported")
    seen = Path(settings[SEEN]).read_text().splitlines() if Path(settings[SEEN]).exists() else []
    failures += [f"{source}.cpp was never loaded by a test" for source, path in libraries.items() if path not in seen]
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
