"""The worker: a process that runs cases one after the other, so that a fault costs one case and not the run.

It reads one JSON request a line from its standard input and answers with JSON events, a line each, on a descriptor of
its own. Standard output and input of the kernels are elsewhere: a kernel that prints or reads cannot disturb the talk.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ridgeline.bench.channels import die_with_parent, take_channels

if TYPE_CHECKING:
    from ridgeline.analytical.problem import Problem, Structure
    from ridgeline.bench.devices.unit import Session
    from ridgeline.bench.energy.meter import EnergyMeter, Work
    from ridgeline.workloads.suite import Settings


def main() -> None:
    """Serve requests until standard input closes."""
    requests, events = take_channels()
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends this process
    # On this signal the innermost frames go to standard error, also out of a call that never returns.
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    runner = _Runner(events)
    for line in requests:
        runner.serve(json.loads(line))


class _Runner:
    """Runs requests; keeps what is worth keeping warm between them: imports, sessions and the probes of the roofs."""

    def __init__(self, events: TextIO) -> None:
        self._events = events
        self._probes: dict[str, Any] = {}
        self._sessions: dict[str, Session] = {}
        self._meters: dict[str, EnergyMeter] = {}

    def _send(self, event: str, **values: Any) -> None:
        self._events.write(json.dumps({"event": event, **values}) + "\n")
        self._events.flush()

    def serve(self, request: Mapping[str, Any]) -> None:
        """Run one case and send its result; every outcome that Python can see is a result."""
        # Heavy imports are here, inside the supervised part: if one hangs or crashes, the parent sees it as a phase.
        self._send("phase", name="import")
        import torch

        from ridgeline.bench.checks import IncorrectError
        from ridgeline.bench.devices.cuda_timer import CaptureError
        from ridgeline.bench.devices.unit import UnitError, UnitLostError
        from ridgeline.bench.memory import TooLargeError
        from ridgeline.kernels.registry import RegistryError, Unsupported, load, one_line

        fields: dict[str, Any]
        try:
            if request.get("task") == "start":
                fields = {"status": "ok"}
            elif request.get("task") == "present":
                self._send("phase", name="open the unit")
                self._session(request["unit"]).check_present(request["losses"])
                fields = {"status": "ok"}
            elif "callable" in request:
                fields = self._measure_callable(request)
            else:
                load([Path(folder) for folder in request["with"]])
                tasks = {"compare": self._compare, "check": self._check}
                fields = tasks.get(request.get("task", ""), self._measure)(request)
        except (Unsupported, CaptureError) as error:
            fields = {"status": "unsupported", "reason": str(error)}
        except IncorrectError as error:
            fields = {"status": "incorrect", "reason": str(error)}
        except TooLargeError as error:
            fields = {"status": "out_of_memory", "reason": str(error)}
        except (MemoryError, torch.OutOfMemoryError) as error:
            fields = {"status": "out_of_memory", "reason": one_line(error)}
        except (UnitLostError, UnitError) as error:
            reason = f"unit {request['unit']} was lost: {one_line(error)}"
            fields = {"status": "crashed", "reason": reason, "unit_lost": True}
        except RegistryError as error:
            fields = {"status": "crashed", "reason": str(error)}
        except Exception as error:
            text = str(error)
            refused = "can't allocate memory" in text or "out of memory" in text.lower()
            fields = {"status": "out_of_memory" if refused else "crashed", "reason": one_line(error)}
        self._send("result", **fields)
        if request.get("ranks", 1) > 1 and fields["status"] in ("ok", "unstable"):
            # Not after a fault: the others would see a lost connection, and take that for a fault of their own.
            from ridgeline.kernels import process_group

            process_group.leave()

    def _compare(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from ridgeline.bench.contest import compare

        return compare(request, lambda name: self._send("phase", name=name))

    def _check(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One check of a paper, on all threads of the unit."""
        import dataclasses

        import torch

        from ridgeline.bench.paper_checks import frame

        frame.load()
        check = frame.get_check(request["paper"], request["check"])
        session = self._session(request["unit"])
        session.use(request["threads"])
        torch.manual_seed(request["seed"])
        lab = frame.Lab(session, request["threads"], request["cache_bytes"], request["seed"])
        self._send("phase", name="check")
        finding = check.find(lab)
        return {
            "status": "ok",
            "finding": dataclasses.asdict(finding),
            "sources": [str(path) for path in sorted({check.path, *lab.sources})],
        }

    def _measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        from ridgeline.analytical.operators import make_problem
        from ridgeline.bench.launches import make_launches
        from ridgeline.bench.timing import measure
        from ridgeline.kernels.registry import get_implementation, get_operator
        from ridgeline.workloads.suite import Settings

        problem = make_problem(request["operator"], request["problem"])
        settings = Settings.model_validate(request["settings"])
        session = self._session(request["unit"])
        rank, ranks = request.get("rank", 0), request.get("ranks", 1)
        session.use(request["threads"], rank)
        session.begin_case(problem.operator, request["implementation"], request["seed"])
        torch.manual_seed(request["seed"])
        others = None
        if ranks > 1:
            from ridgeline.bench import lockstep

            self._send("phase", name="meet")
            others = lockstep.join(request, session.torch_device, settings.timeout_s)
        self._send("phase", name="prepare")
        launches, checker, prepare_s = make_launches(
            get_operator(problem.operator),
            problem,
            get_implementation(problem.operator, request["implementation"]),
            session,
            threads=request["threads"],
            cold=request["cache"] == "cold",
            cache_bytes=request["cache_bytes"],
            seed=request["seed"],
            rank=rank,
            ranks=ranks,
            memory_limit_bytes=request["memory_limit_bytes"],
            config=request["config"],
        )
        self._send("phase", name="check")
        launches.check_all_ways("before timing")
        self._send("phase", name="time")
        beside = {probe["limit"]: self._probe(session, probe) for probe in request["beside"]}
        began_s = session.clock()
        if others is None:
            timing = measure(launches, session.timer, settings, session.watch, session.clock, session.sleep)
        else:
            timing = lockstep.measure_in_step(others, launches, session, settings)
        timing_s = session.clock() - began_s
        for probe in request["beside"]:
            beside[probe["limit"]] += self._probe(session, probe)
        self._send("phase", name="energy")
        unmetered = ""
        if ranks > 1:
            # A meter launches as often as its windows need; the other ranks would have to know how often.
            unmetered = "the energy of several ranks is not measured"
        elif request["cache"] == "cold" and not launches.stays_cold:
            unmetered = "launches in a row come back to copies that are still in the cache"
        meter = self._energy(session, request["unit"], settings, unmetered)
        launch: Callable[[int], None] = launches.launch
        if meter.measures:
            launch = session.unattended(launch, timing.summary.median, launches.rotation)
        energy = meter.measure(
            launch,
            timing.summary.median,
            work=_per_launch(problem, launches.structure),
            budget_s=settings.energy_budget_s,
            synchronize=session.synchronize,
        )
        self._send("phase", name="profile")
        profiled = session.profile(launches.launch)
        self._send("phase", name="check again")
        launches.check_all_ways("after timing")
        facts = {
            "prepare_s": prepare_s,
            "peak_device_memory_bytes": session.peak_memory_bytes(),
            **checker.facts(),
        }
        return {
            **timing.to_fields(),
            "timing_s": timing_s,
            "working_set_bytes": problem.footprint_bytes(),
            "structure_figures": dict(launches.structure.figures),
            "structure_digest": launches.structure.digest,
            "roofs_beside": [{"limit": limit, "values_per_s": values} for limit, values in beside.items()],
            "energy": energy.model_dump(mode="json"),
            "energy_reason": energy.reason,
            **profiled,
            **(facts if others is None else lockstep.facts_together(others.tell(facts))),
        }

    def _measure_callable(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A function of the user's own, from a file; its arguments come from another function of that file."""
        import importlib.util

        from ridgeline.bench.callables import CallableLaunches, time_in
        from ridgeline.workloads.suite import Settings

        asked = request["callable"]
        path = Path(asked["file"])
        sys.path.insert(0, str(path.parent))  # as `python FILE` does: it may import a file beside it
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        session = self._session(request["unit"])
        session.use(request["threads"])
        self._send("phase", name="prepare")
        spec.loader.exec_module(module)
        function = getattr(module, asked["function"])
        arguments = [tuple(a) for a in getattr(module, asked["arguments"])()] if asked["arguments"] else []
        self._send("phase", name="time")
        settings = Settings.model_validate(request["settings"])
        return time_in(session, CallableLaunches(function, arguments), settings).to_fields()

    def _energy(self, session: Session, spec: str, settings: Settings, unmetered: str) -> EnergyMeter:
        """The meter of a unit, which keeps what it has learnt about the sensor and the idle baseline; none where
        ``unmetered`` says why a case has none."""
        from ridgeline.bench.energy.choose import choose_source
        from ridgeline.bench.energy.meter import EnergyMeter
        from ridgeline.bench.energy.source import EnergySource, NullSource

        if unmetered:
            return EnergyMeter(NullSource("no_meter", unmetered))
        key = f"{spec} {settings.meter}"
        if key not in self._meters:
            if session.no_meter:
                source: EnergySource = NullSource("no_meter", session.no_meter)
            else:
                source = choose_source(settings.meter, session.card_uuid, clock=session.clock)
            self._meters[key] = EnergyMeter(source, clock=session.clock, sleep=session.sleep)
        return self._meters[key]

    def _session(self, spec: str) -> Session:
        from ridgeline.bench.devices.choose import open_session

        if spec not in self._sessions:
            self._sessions[spec] = open_session(spec)
        return self._sessions[spec]

    def _probe(self, session: Session, probe: Mapping[str, Any]) -> list[float]:
        from ridgeline.bench.roofs import RoofProbe

        key = json.dumps(probe, sort_keys=True)
        if key not in self._probes:
            self._probes[key] = RoofProbe(probe, session)
        return list(self._probes[key].rates())


def _per_launch(problem: Problem, structure: Structure) -> Work:
    from ridgeline.bench.energy.meter import Work

    work = problem.known_work(structure)
    return Work(float(work.flop) or None, float(work.bytes) or None)


if __name__ == "__main__":
    main()
