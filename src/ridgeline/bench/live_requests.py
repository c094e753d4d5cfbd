"""Requests to a runnable model, timed on this CPU step by step: what idealized runtimes are fitted to and judged by."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from ridgeline.analytical.idealized.points import denoised
from ridgeline.bench.devices.unit import Observed, Session, Unit
from ridgeline.bench.environment import environment
from ridgeline.bench.locks import held
from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.measurement import LeftOutBlock, Protocol, Status
from ridgeline.results.model_step import ModelStep
from ridgeline.results.run import RunManifest
from ridgeline.results.store import Store, new_run_id

if TYPE_CHECKING:
    from ridgeline.workloads.runnable.decoder import Decoder

PROTOCOL_VERSION = 1
LOAD_LIMIT = 0.1
"""Share of a processor that other processes may take during a trial. Two threads wait for each other in every product,
so a tenth of one processor lengthens a prefill by about as much; a single kernel's block may bear more."""
MOST_TRIALS = 10
AGREEMENT = 0.03
"""How far the second-best trial may lie above the denoised time."""
SLOWDOWN = 1.08
"""How much longer than its fastest the probe may take before a trial."""
PROBES = 20
LONGEST_WAIT_S = 1.0
"""For the probe, before each trial."""
QUIET_S = 0.2
"""How long nobody else may compute before a trial is taken again."""
NO_ENERGY = "requests of a live model are not metered"

Request = tuple[int, int, int]
"""p, o, b."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One run of a request."""

    steps_s: tuple[float, ...]
    observed: Observed

    @property
    def cause(self) -> str:
        """What else than the model shaped it; empty for nothing seen."""
        load = self.observed.conditions.load_other
        if not self.observed.cause and load is not None and load > LOAD_LIMIT:
            return "other processes"
        return self.observed.cause


@dataclass
class LiveModel:
    """A decoder on this host, with the watch of its unit."""

    unit: Unit
    decoder: Decoder
    error_relative: float
    error_tolerance: float
    _seed: int = field(default=0)

    def probe(self) -> float:
        """Seconds of one product with the largest matrix of the model."""
        import torch

        x = torch.ones(1, self.decoder.size.hidden)
        began = time.perf_counter_ns()
        self.decoder.head(x)
        return (time.perf_counter_ns() - began) * 1e-9

    def trial(self, request: Request, session: Session) -> Trial:
        """Run a request on a fresh random prompt and time its steps."""
        import torch

        from ridgeline.workloads.runnable.decoder import generate

        p, o, b = request
        self._seed += 1
        generator = torch.Generator().manual_seed(self._seed)
        prompt = torch.randint(self.decoder.size.vocabulary, (b, p), generator=generator)
        stamps: list[int] = []
        session.watch.begin()
        stamps.append(time.perf_counter_ns())
        generate(self.decoder, prompt, o, lambda: stamps.append(time.perf_counter_ns()))
        observed = session.watch.end()
        return Trial(tuple((b - a) * 1e-9 for a, b in pairwise(stamps)), observed)


def build(name: str, precision: str, unit: Unit) -> LiveModel:
    """Make a model and check it against a full recomputation of its own weights.

    Raises:
        RunnableError: for an unknown model or precision, or logits that are wrong.
    """
    from ridgeline.workloads.runnable.sizes import RunnableError, check_precision, find_size

    size = find_size(name)
    check_precision(precision)
    from ridgeline.kernels.registry import load  # this one and the next take seconds
    from ridgeline.workloads.runnable.decoder import Decoder
    from ridgeline.workloads.runnable.recomputed import TOLERANCE, relative_error

    load()
    decoder = Decoder(size, precision, unit.threads)
    error = relative_error(decoder)
    if not error <= TOLERANCE:
        raise RunnableError(f"{name} {precision}: logits are off by {error:.2g}, tolerance {TOLERANCE:g}")
    return LiveModel(unit, decoder, error, TOLERANCE)


def measure(
    live: LiveModel,
    session: Session,
    requests: Sequence[Request],
    *,
    trials: int,
    budget_s: float,
    seed: int = 0,
    report: Report = lambda _: None,
) -> dict[Request, list[Trial]]:
    """Every request in ``trials`` rounds, shuffled in each, so that drift falls on all alike; every trial is its own run.

    A trial begins when a probe of the machine is fast, or after :data:`LONGEST_WAIT_S`. Rounds follow, up to
    :data:`MOST_TRIALS`, of those requests whose trials do not agree yet (:func:`agree`). A trial that others shaped
    stays, marked, and its request is run again behind the rest of its round. After one, the next waits until the
    machine is quiet. All this ends with the budget; the first rounds are finished for as long again, and requests that
    are left then keep the trials they have. The caller holds the unit's lock (:mod:`ridgeline.bench.locks`).
    """
    found: dict[Request, list[Trial]] = {request: [] for request in requests}
    order = random.Random(seed)
    session.use(live.decoder.threads)
    longest = max(requests, key=lambda r: r[0] * r[2])
    live.trial((longest[0], 2, longest[2]), session)  # pages, thread pools, choices of kernels
    began = time.monotonic()
    fastest_s = min(live.probe() for _ in range(PROBES))
    for number in range(max(trials, MOST_TRIALS)):
        wanted = [r for r in requests if number < trials or not agree(found[r])]
        queue = order.sample(wanted, len(wanted))
        end_s = 2.0 * budget_s if number < trials else budget_s
        while queue and time.monotonic() - began < end_s:
            request = queue.pop(0)
            fastest_s = _wait_until_fast(live, fastest_s, budget_s - (time.monotonic() - began))
            trial = live.trial(request, session)
            found[request].append(trial)
            p, o, b = request
            total = sum(trial.steps_s)
            report(f"round {number + 1}: p={p} o={o} b={b} {total:.4g} s {trial.cause}")
            left_s = budget_s - (time.monotonic() - began)
            if trial.cause and left_s > 0.0 and len(found[request]) < 4 * MOST_TRIALS:
                queue.append(request)
                _wait_until_quiet(session, left_s)
    return found


def agree(trials: Sequence[Trial]) -> bool:
    """Whether two undisturbed trials are close to the request's denoised time, so that more would hardly lower it.

    On a virtual machine memory is slower for seconds at a time, and no counter of the guest shows it.
    """
    steps = [trial.steps_s for trial in trials if not trial.cause]
    return len(steps) > 1 and sorted(map(sum, steps))[1] <= (1.0 + AGREEMENT) * denoised(steps)


def _wait_until_fast(live: LiveModel, fastest_s: float, left_s: float) -> float:
    """Wait until the probe is about as fast as it ever was, so that a trial begins while the machine is.

    Neighbours of a virtual machine slow it for seconds at a time (decode steps here took 15 or 21 ms) and no counter of
    the guest shows them. What a trial then takes is kept, whatever it is.

    Returns:
        the fastest probe so far.
    """
    began = time.monotonic()
    while True:
        took_s = live.probe()
        fastest_s = min(fastest_s, took_s)
        if took_s <= SLOWDOWN * fastest_s or time.monotonic() - began > min(LONGEST_WAIT_S, left_s):
            return fastest_s
        time.sleep(took_s)


def _wait_until_quiet(session: Session, longest_s: float) -> None:
    """Wait until a moment passes in which nobody else computes, but no longer than ``longest_s``."""
    began = time.monotonic()
    while time.monotonic() - began < longest_s:
        session.watch.begin()
        time.sleep(QUIET_S)
        if not Trial((), session.watch.end()).cause:
            return


def record(live: LiveModel, run_id: str, request: Request, trials: Sequence[Trial], started_at: str) -> ModelStep:
    """The trials of one request as they are stored."""
    status: Status
    left_out = tuple(LeftOutBlock(block=i, cause=t.cause) for i, t in enumerate(trials) if t.cause)
    if not trials:
        status, reason = "timeout", "the time was over before its first trial"
    elif len(left_out) == len(trials):
        status, reason = "unstable", "every trial was disturbed: " + left_out[0].cause
    else:
        status, reason = "ok", ""
    return ModelStep(
        record_id=secrets.token_hex(8),
        run_id=run_id,
        started_at=started_at,
        model=live.decoder.size.name,
        precision=live.decoder.precision,
        prompt_tokens=request[0],
        output_tokens=request[1],
        batch=request[2],
        placement=live.unit.placement,
        # Weights that the last level holds are warm from the request before, as in serving.
        protocol=Protocol(timer=live.unit.timer, cache="warm", threads=live.decoder.threads, version=PROTOCOL_VERSION),
        status=status,
        reason=reason,
        samples_s=tuple(t.steps_s for t in trials),
        conditions=tuple(t.observed.conditions for t in trials),
        left_out=left_out,
        error_relative=live.error_relative,
        error_tolerance=live.error_tolerance,
        energy_reason=NO_ENERGY,
    )


def measure_into(
    store: Store,
    live: LiveModel,
    requests: Sequence[Request],
    *,
    trials: int,
    budget_s: float,
    report: Report = lambda _: None,
) -> tuple[str, list[ModelStep]]:
    """Measure, and store the records as a run.

    Returns:
        id of the run, and the records of the different requests in their order.

    Raises:
        StoreError: where the store cannot be written.
    """
    from ridgeline.bench.run import now_utc

    unit, run_id, started_at = live.unit, new_run_id(), now_utc()
    manifest = RunManifest(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        suite=f"model {live.decoder.size.name} {live.decoder.precision}",
        plan_digest=run_id,  # a live run is not continued: its points belong to one stretch of time
        planned=len(set(requests)),
        created_at=started_at,
        device=unit.device.id,
        device_name=unit.device.name,
        environment=environment(),
    )
    with store.create(manifest, unit.device) as writer:
        with unit.session() as session, held({unit.placement.unit}):
            found = measure(live, session, requests, trials=trials, budget_s=budget_s, report=report)
        records = [record(live, run_id, request, ran, started_at) for request, ran in found.items()]
        for item in records:
            writer.append(item)
        writer.finish()
    return run_id, records
