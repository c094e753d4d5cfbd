"""``ridgeline model idealize``: fit T(p, o) of a backend from few requests, and predict the others."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_TRIALS = 3
LIVE_BUDGET_S = 120.0
LIVE_REQUESTS = ((1, 1, 1), (8, 1, 1), (24, 1, 1), (64, 1, 1), (128, 1, 1), (1, 24, 1), (128, 24, 1))
"""What --live measures: prompts on both sides of the knee, and long generations at the shortest and longest."""


def idealize(
    points: Annotated[Path | None, typer.Argument(help="CSV with columns p, o, seconds; or joules, usd; b.")] = None,
    run: Annotated[str | None, typer.Option(help="Fit the model steps of this run of the store, or `latest`.")] = None,
    published: Annotated[str | None, typer.Option(help="Fit published A100 runtimes: a name, or `list`.")] = None,
    live: Annotated[str | None, typer.Option(help="Run this model here, store the run and fit it; or `list`.")] = None,
    precision: Annotated[str, typer.Option(help="Of --live: float32 or int8 weights.")] = "float32",
    series: Annotated[str, typer.Option(help="Of --run: text that only this series' name holds.")] = "",
    response: Annotated[str, typer.Option(help="What is fitted: seconds, joules or usd.")] = "seconds",
    denoise: Annotated[bool, typer.Option("--denoise", help="Minimum over trials in place of the median.")] = False,
    overhead: Annotated[float, typer.Option(help="Known constant part of each request, in the response's unit.")] = 0.0,
    at: Annotated[list[str] | None, typer.Option("--at", metavar="P,O[,B]", help="Predict this; repeatable.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.9,
    usd_per_hour: Annotated[float | None, typer.Option(help="Price of one device: adds USD per request.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices that the backend ran on (default: as published, else 1).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Built-in or --live model, or a config.json: adds ideal time and efficiency."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="With --model: what the backend ran on (default: roofs measured here)."),
    ] = None,
    weights: Annotated[str, typer.Option(help="With --model: what its matrices are stored in.")] = "bfloat16",
    activations: Annotated[str, typer.Option(help="With --model: what its products compute in.")] = "bfloat16",
    store: Annotated[Path | None, typer.Option("--store", help="Folder of results.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Fit the idealized runtime T(p, o) = alpha(p) + sum of beta(context) and predict requests that were not run.

    Points come from a CSV file, a run of ours (--run), published A100 runtimes (--published) or this machine (--live).
    p is the prompt's length in tokens, o the generated tokens, b the requests at once.
    """
    from ridgeline.analytical.idealized.model import fit_runtime
    from ridgeline.analytical.idealized.points import IdealizedError

    if published == "list" or live == "list":
        _list(published == "list", json)
        return
    given = [
        name for name, value in (("CSV", points), ("--run", run), ("--published", published), ("--live", live)) if value
    ]
    if len(given) != 1:
        said = f"not {' and '.join(given)}" if given else "none is given"
        raise IdealizedError(f"one source of points is needed (a CSV file, --run, --published or --live), {said}")
    wanted = [_request(text) for text in at or []]
    if not 0.0 < confidence < 1.0:
        raise IdealizedError(f"--confidence {confidence:g}: must lie between 0 and 1")
    if usd_per_hour is not None and response != "seconds":
        raise IdealizedError(f"--usd-per-hour prices seconds, not {response}")
    if device is not None and model is None:
        raise IdealizedError("--device needs --model: the ideal is of a model on a device")
    if model is not None and device is None and not (run or live):
        raise IdealizedError("--model needs --device: the ideal is of a model on a device")
    if model is not None and response != "seconds":
        raise IdealizedError(f"the ideal of --model is a time, and {response} are fitted")
    source, found, ran_on = _source(points, run, published, live, precision, series, response, store)
    fitted = fit_runtime(found, response=response, statistic="minimum" if denoise else "median", overhead=overhead)
    devices = devices or ran_on
    ideal = None if model is None else _ideal(model, device, weights, activations, devices, store)
    document = _document(source, fitted, wanted, confidence, usd_per_hour, devices, ideal)
    if json:
        import json as json_module

        print(json_module.dumps(document, indent=1, allow_nan=False))
    else:
        _print(document)


def _request(text: str) -> tuple[int, int, int]:
    from ridgeline.analytical.idealized.points import IdealizedError

    parts = text.split(",")
    try:
        p, o, b = (int(part) for part in (parts if len(parts) == 3 else [*parts, "1"]))
    except ValueError:
        raise IdealizedError(f"--at {text!r}: give P,O or P,O,B, such as --at 512,64") from None
    if min(p, o, b) < 1:
        raise IdealizedError(f"--at {text!r}: each must be at least 1")
    return p, o, b


def _source(
    points: Path | None,
    run: str | None,
    published: str | None,
    live: str | None,
    precision: str,
    series: str,
    response: str,
    store: Path | None,
) -> tuple[str, Any, int]:
    """What the points are of, in words, the points, and how many devices they ran on."""
    from ridgeline.analytical.idealized.points import IdealizedError
    from ridgeline.analytical.idealized.published import SOURCE, find_published

    if points is not None:
        return str(points), _csv_points(points, response), 1
    if published is not None:
        runtime = find_published(published)
        if response != "seconds":
            raise IdealizedError(f"--published has seconds only, not {response}")
        note = f"; {runtime.note}" if runtime.note else ""
        said = f"published, not measured by us: {runtime.name} on {runtime.devices} A100{note}; {SOURCE}"
        return said, runtime.points, runtime.devices
    from ridgeline.results.model_step import ModelStep, points_of
    from ridgeline.results.store import Store

    opened = Store(store)
    if live is not None:
        if response != "seconds":
            raise IdealizedError(f"--live measures seconds only, not {response}")
        run, records = _measure(live, precision, opened)
    else:
        assert run is not None
        run = opened.run(run).run_id
        records = [r for r in opened.records(run)[0] if isinstance(r, ModelStep) and series in r.series]
    origin = f"run {run}"
    found = points_of(records, response, origin)
    return f"{origin}: {records[0].series}", found, 1


def _csv_points(path: Path, response: str) -> Any:
    import csv

    from ridgeline.analytical.idealized.points import IdealizedError, points_from_rows

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            for name in ("p", "o", response):
                if name not in columns:
                    raise IdealizedError(f"{path}: no column {name!r}; it has {', '.join(columns) or 'no header'}")
            return points_from_rows(list(reader), response, str(path))
    except OSError as error:
        raise IdealizedError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise IdealizedError(f"{path}: not a CSV file: {error}") from None


def _measure(name: str, precision: str, store: Any) -> tuple[str, Any]:
    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.bench.live_requests import build, measure_into

    def report(line: str) -> None:
        print(line, file=sys.stderr)

    live = build(name, precision, choose_unit("cpu"))
    return measure_into(store, live, LIVE_REQUESTS, trials=DEFAULT_TRIALS, budget_s=LIVE_BUDGET_S, report=report)


def _ideal(model: str, device: str | None, weights: str, activations: str, devices: int, store: Path | None) -> Any:
    """The bound of the model, its matrices in slices over the devices."""
    from ridgeline.analytical.architectures import architecture_from_config, load_architecture
    from ridgeline.analytical.catalogue import find_device
    from ridgeline.analytical.idealized.ideal import Ideal
    from ridgeline.analytical.layout import Layout, Precisions
    from ridgeline.workloads.runnable.sizes import SIZES

    known = SIZES.get(model)
    return Ideal(
        architecture=architecture_from_config(known.config(), model) if known else load_architecture(model),
        precisions=Precisions(weights=weights, activations=activations, kv=activations),
        layout=Layout(tp=devices),
        device=_roofs_measured_here(store) if device is None else find_device(device),
    )


def _roofs_measured_here(store: Path | None) -> Any:
    from ridgeline.analytical.idealized.points import IdealizedError
    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.bench.measure_command import newest_roofs
    from ridgeline.results.store import Store

    unit, opened = choose_unit("cpu"), Store(store)
    found = newest_roofs(opened, unit)
    if found is None:
        raise IdealizedError(
            f"{opened.path}: no roofs of {unit.device.id}: measure them with `ridgeline roofs`, or give --device"
        )
    return found.select(("measured",), unit.threads)


def _list(published: bool, json: bool) -> None:
    import json as json_module

    from ridgeline.analytical.idealized.published import published_runtimes
    from ridgeline.workloads.runnable.sizes import SIZES

    if published:
        rows = [
            {"name": r.name, "layers": r.layers, "hidden": r.hidden, "devices": r.devices, "deployments": r.deployments}
            for r in published_runtimes().values()
        ]
    else:
        rows = [{"name": s.name, "parameter_count": s.parameter_count, "source": s.source} for s in SIZES.values()]
    if json:
        print(json_module.dumps(rows, indent=1))
        return
    for row in rows:
        print("  ".join(", ".join(value) if isinstance(value, tuple) else str(value) for value in row.values()))


def _document(
    source: str,
    fitted: Any,
    wanted: list[tuple[int, int, int]],
    confidence: float,
    usd_per_hour: float | None,
    devices: int,
    ideal: Any,
) -> dict[str, Any]:
    """What is printed, in either form."""
    from ridgeline.analytical.idealized.points import software_efficiency, usd_per_request

    def against_ideal(p: int, o: int, b: int, seconds: float) -> dict[str, Any]:
        if ideal is None:
            return {}
        ideal_s = ideal.seconds(p, o, b)
        efficiency = software_efficiency(ideal_s, seconds)
        return {"ideal_s": ideal_s, "software_efficiency": efficiency, "beats_bound": efficiency > 1.0}

    errors = [abs(point.error) for point in fitted.left_out if point.error is not None]
    predictions = []
    for p, o, b in wanted:
        estimate = fitted.predict(p, o, b, confidence)
        value = float(estimate.value[0])
        row = {
            "p": p,
            "o": o,
            "b": b,
            "value": value,
            "low": None if estimate.low is None else float(estimate.low[0]),
            "high": None if estimate.high is None else float(estimate.high[0]),
            "extrapolated": bool(estimate.extrapolated[0]),
            "interval_reason": estimate.reason,
        }
        if usd_per_hour is not None:
            row["usd_per_request"] = usd_per_request(value, usd_per_hour, devices, b)
        predictions.append(row | against_ideal(p, o, b, value))
    left_out = {(q.point.p, q.point.o, q.point.b): q.error for q in fitted.left_out}
    return {
        "source": source,
        "response": fitted.response,
        "statistic": fitted.statistic,
        "overhead": fitted.overhead,
        "noise_relative": fitted.noise,
        "constants": fitted.constants,
        "r_squared": fitted.r_squared,
        "left_out_error_median": statistics.median(errors) if errors else None,
        "left_out_error_worst": max(errors, default=None),
        "confidence": confidence,
        "ideal": None if ideal is None else f"{ideal.architecture.name} on {devices} {ideal.device.name}",
        "points": [
            {
                "p": point.p,
                "o": point.o,
                "b": point.b,
                "trials": len(point.trials),
                "value": point.value(fitted.statistic),
                "residual": float(residual),
                "left_out_error": left_out.get((point.p, point.o, point.b)),
                **against_ideal(point.p, point.o, point.b, point.value(fitted.statistic)),
            }
            for point, residual in zip(fitted.points, fitted.residuals(), strict=True)
        ],
        "predictions": predictions,
    }


UNITS = {"seconds": "s", "joules": "J", "usd": "USD"}


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=160)
    unit = UNITS[document["response"]]
    console.print(f"Idealized {document['response']} of {document['source']}", markup=False)
    constants = ", ".join(f"{name} {value:.4g}" for name, value in document["constants"].items())
    r_squared = document["r_squared"]
    told = "" if r_squared is None else f"; R² {r_squared:.5f}"
    if document["ideal"]:
        console.print(f"Ideal: the bound of {document['ideal']}; efficiency is ideal over measured", markup=False)
    console.print(f"Constants in {unit}: {constants}{told}", markup=False)
    table = Table(title=f"Points, {document['statistic']} of the trials", title_justify="left")
    columns = ("ideal s", "efficiency %") if document["ideal"] else ()
    for name in ("p", "o", "b", "trials", unit, "fit %", "left out %", *columns):
        table.add_column(name, justify="right")
    for row in document["points"]:
        error = row["left_out_error"]
        table.add_row(
            str(row["p"]), str(row["o"]), str(row["b"]), str(row["trials"]), f"{row['value']:.4g}",
            f"{row['residual'] * 100:+.2f}", "" if error is None else f"{error * 100:+.2f}", *_efficiency(row),
        )  # fmt: skip
    console.print(table)
    if document["left_out_error_median"] is not None:
        median, worst = document["left_out_error_median"], document["left_out_error_worst"]
        console.print(f"Each point from the others: median error {median:.2%}, worst {worst:.2%}", markup=False)
    if document["predictions"]:
        _print_predictions(document, unit, console, Table(title="Predictions", title_justify="left"))


def _efficiency(row: dict[str, Any]) -> list[str]:
    if "ideal_s" not in row:
        return []
    mark = " beats the bound" if row["beats_bound"] else ""
    return [f"{row['ideal_s']:.4g}", f"{row['software_efficiency'] * 100:.1f}{mark}"]


def _print_predictions(document: dict[str, Any], unit: str, console: Any, table: Any) -> None:
    rows = document["predictions"]
    priced = "usd_per_request" in rows[0]
    columns = ["USD per request"] * priced + ["ideal s", "efficiency %"] * (document["ideal"] is not None)
    for name in ("p", "o", "b", unit, f"{document['confidence']:.0%} interval", *columns):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        interval = "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
        notes = (["outside of what was measured"] * row["extrapolated"]) + [row["interval_reason"]]
        table.add_row(
            str(row["p"]), str(row["o"]), str(row["b"]), f"{row['value']:.4g}", interval,
            *([f"{row['usd_per_request']:.3g}"] if priced else []), *_efficiency(row),
            "; ".join(note for note in notes if note),
        )  # fmt: skip
    console.print(table)
