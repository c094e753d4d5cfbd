# Two commands matter: `make run` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# TORCH=system uses the torch that is already installed for $(PYTHON), as on a GPU machine.
TORCH  ?= pinned
PORT   ?= 8501

ifeq ($(TORCH),system)
VENV_FLAGS   := --system-site-packages
CONSTRAINTS  :=
# Cloud images keep their torch in a virtual environment as often as in the system, and a virtual environment made from
# another one sees only the packages of the interpreter below both: the path of the outer one is added.
SEE_SYSTEM    = $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sep="\n")' \
                > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch-of-the-system.pth"
else
VENV_FLAGS   :=
CONSTRAINTS  := -c constraints.txt
SEE_SYSTEM   := true
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-test run test test-sanitizers lint format dashboard bench-roofs bench-overhead bench-false-alarms bench-faults bench-power bench-coverage bench-analytical gpu-check bench-energy bench-idealized bench-attention clean browser

help: ## Say what each target does.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Ridgeline needs Python 3.11 or newer: set PYTHON="; exit 2; }
	@test "$(TORCH)" != system || $(PYTHON) -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' || { echo "TORCH=system, and $(PYTHON) has no torch: set PYTHON= to the one that has it, or leave TORCH out"; exit 2; }
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	@$(SEE_SYSTEM)
	$(BIN)/python -m pip install -qq $(CONSTRAINTS) -e '.[run]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	$(BIN)/python -m pip install -qq $(CONSTRAINTS) -e '.[run,test,data]'
	@touch $@

setup: $(VENV)/run.stamp ## Make the virtual environment in .venv.
setup-test: $(VENV)/test.stamp

run: setup ## Measure the roofs of this machine and the quick suite, store and summarise.
	$(BIN)/ridgeline run quick

test: setup-test browser ## Run all tests.
	$(BIN)/python -m pytest

# The dashboard is tested in a real browser, which comes from the system.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq chromium >/dev/null; \
	else echo "the dashboard tests need Chromium: sudo apt-get install chromium"; exit 2; fi

test-sanitizers: setup-test ## Run all native code under AddressSanitizer and UBSan; the last line says PASS or FAIL.
	$(BIN)/python tests/kernels/native/run_sanitized.py

lint: setup-test ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-test ## Bring the code into its style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dashboard: setup ## Open the dashboard over the results in .ridgeline.
	$(BIN)/ridgeline dashboard --port $(PORT)

bench-roofs: setup ## Compare our roofs with likwid-bench; the last line says PASS or FAIL.
	$(BIN)/python benchmarks/roofs_against_likwid.py

$(VENV)/peers-timing.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip install -qq $(CONSTRAINTS) -e '.[run,test,data,peers-timing]'
	@touch $@

bench-overhead: $(VENV)/peers-timing.stamp ## Compare seconds to a 1 % interval with pyperf, pytest-benchmark and torch; PASS or FAIL.
	$(BIN)/python benchmarks/overhead.py

bench-false-alarms: $(VENV)/peers-timing.stamp ## Compare equal kernels 300 times: how often they are called different; PASS or FAIL.
	$(BIN)/python benchmarks/false_alarms.py

bench-faults: setup-test ## Inject every fault we know for real: none may become a number; PASS or FAIL.
	$(BIN)/python benchmarks/faults.py

bench-power: setup ## Compare kernels with 5, 2 and 1 % more work: how often it is found; PASS or FAIL.
	$(BIN)/python benchmarks/power.py

bench-coverage: setup ## Check how often our interval holds the truth, on synthetic series; PASS or FAIL.
	$(BIN)/python benchmarks/interval_coverage.py

# Its own environment: the peer's package would bring a hundred others, and is never imported by ours.
$(VENV)/peer-aiconfigurator.stamp: $(VENV)/test.stamp
	$(BIN)/python -m venv $(VENV)/peer-aiconfigurator
	$(VENV)/peer-aiconfigurator/bin/python -m pip install -qq aiconfigurator==0.12.0
	@touch $@

bench-analytical: $(VENV)/peer-aiconfigurator.stamp ## Bounds, predictions, serving and speed of the analytical side (half an hour); PASS or FAIL.
	$(BIN)/python benchmarks/analytical.py

gpu-check: setup ## Try every GPU path on a few cases and write gpu-check.md and gpu-check.json; exits 2 without a GPU.
	$(BIN)/python -m ridgeline.bench.gpu_check

# Its own environment, as for aiconfigurator: Zeus is needed by this comparison alone.
$(VENV)/peer-zeus.stamp: $(VENV)/run.stamp
	$(BIN)/python -m venv $(VENV)/peer-zeus
	$(VENV)/peer-zeus/bin/python -m pip install -qq $(CONSTRAINTS) zeus==0.16.0
	@touch $@

bench-energy: $(VENV)/peer-zeus.stamp ## Compare our joules with exact ones and with Zeus; the last line says PASS or FAIL.
	$(BIN)/python benchmarks/energy.py --zeus-python $(VENV)/peer-zeus/bin/python

bench-idealized: setup ## Predict requests from few: published A100 runtimes, then live decoders (14 minutes); each PASS or FAIL.
	$(BIN)/python benchmarks/idealized_published.py
	$(BIN)/python benchmarks/idealized_live.py

bench-attention: setup ## Hold the attention kernels against their bars, and read their compiled code (12 minutes); PASS or FAIL.
	$(BIN)/python benchmarks/attention.py

clean: ## Remove the virtual environment and caches; never results.
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
