"""What a reader selects: the run and the filters, each bound to the page's address so that a link holds it."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from ridgeline.dashboard import data, kinds
from ridgeline.results.store import RunInfo, StoreError

NEXT_STEP = (
    "Measure something first: run `make run` in the repository or `ridgeline run quick` anywhere, "
    "then reload this page. Another store: `ridgeline dashboard --store PATH` or `RIDGELINE_STORE`."
)


def all_runs_or_stop() -> list[RunInfo]:
    """All runs; where there are none, or the store cannot be read, say what to do and end the page."""
    try:
        runs = data.load_runs()
    except StoreError as error:
        st.error(f"The store cannot be read. {error}", icon=":material/error:")
        st.info("Choose another store with `ridgeline dashboard --store PATH`.")
        st.stop()
    if not runs:
        st.info(f"No runs in `{data.store_path()}` yet.", icon=":material/inbox:")
        st.markdown(NEXT_STEP)
        st.stop()
    return runs


def pick_run(title: str) -> data.RunView:
    """The page's title, and the run that the reader chose (``?run=``): by default the newest with results."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title(title)
    runs = all_runs_or_stop()
    readable = [r for r in runs if r.state != "damaged"]
    if not readable:
        st.error("Every run of this store is damaged; the page Runs names what is wrong.", icon=":material/error:")
        for run in runs:
            st.markdown(f"- `{run.run_id}`: {run.reason}")
        st.stop()
    # Runs that hold only comparisons or other tools' numbers have pages of their own.
    readable = [r for r in readable if not (held := kinds.kinds_of(r)) or "measurement" in held]
    if not readable:
        st.info("No run of this store holds measurements yet.", icon=":material/inbox:")
        st.markdown(NEXT_STEP + " What there is stands on the pages Comparisons and Runs.")
        st.stop()
    by_id = {r.run_id: r for r in readable}
    default = next((i for i, r in enumerate(readable) if r.records), 0)
    chosen = right.selectbox("Run", list(by_id), index=default, key="run", bind="query-params")
    view = data.load_run(by_id[chosen])
    info = view.info
    st.caption(
        f"suite **{info.suite}** · {info.device_name} · started {when(info.created_at)} · {info.state} · "
        f"{info.ok} ok of {info.records} measured, {info.planned} planned"
    )
    show_badges(info, view.frame)
    return view


def show_badges(info: RunInfo, frame: pd.DataFrame) -> None:
    """What a reader must know before any number: scripted times, and numbers that somebody else took."""
    badges = []
    replayed = sum(kinds.is_replay(protocol) for protocol in frame["protocol"])
    if replayed:
        of_all = "" if replayed == len(frame) else f" ({replayed} of {len(frame)} records)"
        badges.append(f":violet-badge[{kinds.REPLAY}{of_all}]")
    if info.contributed:
        badges.append(":orange-badge[contributed: measured by somebody else]")
    if badges:
        st.markdown(" ".join(badges))


def show_problems(view: data.RunView) -> None:
    """Name what of the run could not be read."""
    if view.problems:
        st.warning(
            "Part of this run could not be read; the rest is shown.\n\n" + "\n".join(f"- {p}" for p in view.problems),
            icon=":material/warning:",
        )


def precision_of(problem: object) -> str:
    """Precision of a problem's operands, or ``other`` where it has none."""
    return str(problem.get("precision", "other")) if isinstance(problem, dict) else "other"


def filter_cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Filters of the sidebar; an empty choice means all, so that a link without it keeps working on any run."""
    with st.sidebar:
        st.markdown("**Filter**")
        operators = st.multiselect(
            "Operator",
            sorted(frame["operator"].unique()),
            key="operator",
            bind="query-params",
            placeholder="all operators",
        )
        precisions = st.multiselect(
            "Precision",
            sorted({precision_of(p) for p in frame["problem"]}),
            key="precision",
            bind="query-params",
            placeholder="all precisions",
        )
        caches = st.multiselect(
            "Cache", sorted(frame["cache"].unique()), key="cache", bind="query-params", placeholder="cold and warm"
        )
    keep = pd.Series(True, index=frame.index)
    if operators:
        keep &= frame["operator"].isin(operators)
    if precisions:
        keep &= frame["problem"].map(precision_of).isin(precisions)
    if caches:
        keep &= frame["cache"].isin(caches)
    return frame[keep]


def pick_threads(frame: pd.DataFrame) -> int:
    """Threads to show: ceilings hold for one number of threads, so one chart shows one. The most common by default."""
    counts = frame["threads"].value_counts()
    options = sorted(int(t) for t in counts.index)
    most = int(counts.index[0])
    with st.sidebar:
        return st.selectbox("Threads", options, index=options.index(most), key="threads", bind="query-params")


def when(timestamp: str) -> str:
    """A stored time with its age: ``2026-11-22 23:15 UTC (3 h ago)``."""
    moment = _moment(timestamp)
    if moment is None:
        return timestamp or "unknown"
    return f"{moment:%Y-%m-%d %H:%M} UTC ({age_of(timestamp)})"


def _moment(timestamp: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def age_of(timestamp: str) -> str:
    """``just now``, ``12 min ago``, ``3 h ago``, ``5 days ago``."""
    moment = _moment(timestamp)
    if moment is None:
        return "unknown"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 0:
        return "in the future: check the clock"
    if seconds < 90:
        return "just now"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    if seconds < 172800:
        return f"{seconds / 3600:.0f} h ago"
    return f"{seconds / 86400:.0f} days ago"
