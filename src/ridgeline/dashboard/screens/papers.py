"""Papers: what each claims, what was shown of it here, what a model says of it, and what is missing."""

from __future__ import annotations

import json
import re

import pandas as pd
import streamlit as st

from ridgeline.dashboard import data
from ridgeline.dashboard.quantity_text import MISSING
from ridgeline.results.ledger import CATEGORIES, load_ledger
from ridgeline.results.paper_state import CheckResult, ClaimResult, PaperState, states_of, stored_checks
from ridgeline.results.sources import check_hash
from ridgeline.results.store import Store, StoreError


@st.cache_data(max_entries=4, show_spinner="Reading the checks")
def all_states(path: str, written: data.Fingerprint) -> list[PaperState]:
    """Every row as it stands; read again once a file of the store changes."""
    return states_of(load_ledger().values(), stored_checks(Store(path)), check_hash)


def table_of(states: list[PaperState]) -> pd.DataFrame:
    """A line per paper."""
    return pd.DataFrame(
        {
            "detail": [f"/papers?paper={s.paper.id}" for s in states],
            "#": [s.paper.number for s in states],
            "paper": [s.paper.id for s in states],
            "category": [CATEGORIES[s.paper.category] for s in states],
            "state": [s.state for s in states],
            "checks shown": [f"{sum(c.shown for c in s.deciding)} of {len(s.deciding)}" for s in states],
            "claims": [len(s.claims) for s in states],
            "missing": [
                "; ".join(dict.fromkeys(c.why for c in s.deciding if not c.shown))
                or "; ".join(f"{c.required.name}: below its threshold" for c in s.checks if c.missed)
                or MISSING
                for s in states
            ],
            "title": [s.paper.title for s in states],
        }
    )


def claims_of(claims: tuple[ClaimResult, ...]) -> pd.DataFrame:
    """A line per claim: published, measured, modelled, and the verdict."""
    lines = []
    for c in claims:
        claim, measured = c.claim, c.not_measured
        if c.measured is not None and c.measured_value is not None:
            measured = f"{c.measured_value:.3g} {claim.unit} on {c.measured.placement.device}"
        conditions = {"against": claim.baseline, "on": claim.hardware, "at": claim.condition}
        stated = [f"{name} {text}" for name, text in conditions.items() if text != "not stated"]
        lines.append(
            {
                "claim": claim.metric,
                "published": claim.published,
                "conditions": "; ".join(stated) or "not stated",
                "source": claim.source + ("" if claim.verified else ", not verified"),
                "measured here": measured,
                "model": MISSING if c.modelled is None else c.modelled.figure,
                "verdict": c.verdict,
                "why": c.why,
            }
        )
    return pd.DataFrame(lines)


def checks_of(checks: tuple[CheckResult, ...]) -> pd.DataFrame:
    """A line per check and device."""
    lines = []
    for c in checks:
        for record in c.measured or (None,):
            value = threshold = MISSING
            if record is not None and record.value is not None:
                value = f"{record.value:.4g}{record.unit}"
                threshold = MISSING if record.threshold is None else f"{record.threshold:.4g}{record.unit}"
            lines.append(
                {
                    "check": c.required.name,
                    "kind": c.required.kind,
                    "states": c.required.states,
                    "state": record.status if record else c.state,
                    "value": value,
                    "threshold": threshold,
                    "seen": "; ".join(filter(None, (record.text, record.reason))) if record else c.why,
                    "where": f"{record.placement.device}, run {record.run_id}" if record else MISSING,
                }
            )
    return pd.DataFrame(lines)


def show_whole(table: pd.DataFrame, key: str) -> None:
    """A table whose texts wrap, shown as they are: cells of ``st.table`` are Markdown."""
    escaped = table.map(lambda text: re.sub(r"([\\`*_{}\[\]<>$~|#^])", r"\\\1", str(text)))
    with st.container(key=key):
        st.table(escaped.set_index(escaped.columns[0]))


st.title("Papers")
path = data.store_path()
try:
    states = all_states(str(path), data.fingerprint(path / "runs", depth=2))
except StoreError as error:
    st.error(f"The store cannot be read. {error}", icon=":material/error:")
    st.stop()
tiles = st.columns(4)
tiles[0].metric("Papers", len(states), border=True)
tiles[1].metric("Rows that work", sum(s.state == "works" for s in states), border=True)
tiles[2].metric("Checks shown", sum(c.shown for s in states for c in s.deciding), border=True)
tiles[3].metric("Claims", sum(len(s.claims) for s in states), border=True)
with st.sidebar:
    st.markdown("**Filter**")
    categories = st.multiselect(
        "Category", list(CATEGORIES.values()), key="category", bind="query-params", placeholder="all categories"
    )
    wanted_states = st.multiselect(
        "State", ["works", "open"], key="state", bind="query-params", placeholder="works and open"
    )
    families = st.multiselect(
        "Family", sorted({f for s in states for f in s.paper.families}, key=lambda f: (f[0], int(f[1:]))),
        key="family", bind="query-params", placeholder="all families",
    )  # fmt: skip
shown = [
    s
    for s in states
    if (not categories or CATEGORIES[s.paper.category] in categories)
    and (not wanted_states or s.state in wanted_states)
    and (not families or set(families) & set(s.paper.families))
]
if not shown:
    st.info("Nothing matches the filter.", icon=":material/filter_alt_off:")
    st.stop()
st.caption(
    "A row works when its checks of correctness, quality and mechanism passed on the present source and each of its ratios "
    "was measured; a ratio below its threshold is listed with the roofline's reason. `ridgeline papers ID --check` carries "
    "the checks out."
)
st.dataframe(
    table_of(shown), width="stretch", hide_index=True, key="papers",
    column_config={
        "detail": st.column_config.LinkColumn("detail", display_text="open", width=56, pinned=True),
        "missing": st.column_config.TextColumn("missing", width="large"),
    },
)  # fmt: skip

st.subheader("One paper")
by_id = {s.paper.id: s for s in shown}
wanted = st.query_params.get("paper", "")
if st.session_state.get("chosen_paper") not in by_id:
    # The address presets the choice; afterwards the reader's own stands and is written back.
    st.session_state["chosen_paper"] = wanted if wanted in by_id else shown[0].paper.id
    if wanted and wanted not in by_id:
        st.warning(f"No paper `{wanted}` here: choose one below.", icon=":material/help:")
chosen = st.selectbox("Paper", list(by_id), key="chosen_paper")
st.query_params["paper"] = chosen
state = by_id[chosen]
st.markdown(
    f"**{state.paper.title}** · :{'green' if state.state == 'works' else 'orange'}-badge[{state.state}] "
    f"· {CATEGORIES[state.paper.category]}, {', '.join(state.paper.families)}"
)
st.markdown(state.paper.mechanism)
st.subheader(
    "Claims", help="What the paper published; what was measured here; what a model allows on the claim's hardware."
)
show_whole(claims_of(state.claims), "claims")
st.subheader("Checks", help="What the row has to show; evidence is the newest record on the present source.")
show_whole(checks_of(state.checks), "checks")
st.download_button(
    "Data (JSON)", lambda: json.dumps(state.to_dict(), indent=1), file_name=f"{chosen}.json", mime="application/json",
    icon=":material/download:", key="json", on_click="ignore",
)  # fmt: skip
