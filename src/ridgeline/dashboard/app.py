"""The dashboard: ``streamlit run app.py``, normally through :mod:`ridgeline.dashboard.serve`.

Pages are files: deep links and tests can name them. Their folder must not be called ``pages``: Streamlit serves a
folder of that name by itself until this script has run once, so the first deep link to a fresh server would miss the
navigation and the layout. Overview is the default page, whose own address Streamlit does not
resolve when it is linked by path; nothing links to it that way.
"""

from __future__ import annotations

import logging

import streamlit as st

from ridgeline.dashboard import data

PAGES = (
    st.Page("screens/overview.py", title="Overview", icon=":material/home:", default=True),
    st.Page("screens/roofline.py", title="Roofline", icon=":material/show_chart:", url_path="roofline"),
    st.Page("screens/kernel.py", title="Kernel detail", icon=":material/query_stats:", url_path="kernel"),
    st.Page("screens/comparisons.py", title="Comparisons", icon=":material/compare_arrows:", url_path="comparisons"),
    st.Page("screens/compiled.py", title="Compiled code", icon=":material/code:", url_path="compiled"),
    st.Page("screens/models.py", title="Models", icon=":material/account_tree:", url_path="models"),
    st.Page("screens/hardware.py", title="Hardware", icon=":material/memory:", url_path="hardware"),
    st.Page("screens/published.py", title="Published", icon=":material/public:", url_path="published"),
    st.Page("screens/papers.py", title="Papers", icon=":material/menu_book:", url_path="papers"),
    st.Page("screens/runs.py", title="Runs", icon=":material/list_alt:", url_path="runs"),
)

# A roofline. Drawn here: Streamlit would fetch a named icon from the network.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">'
    '<rect width="24" height="24" rx="4" fill="#334155"/>'
    '<path d="M4 20 L12 8 H20" fill="none" stroke="white" stroke-width="2.6"/>'
    '<circle cx="16" cy="14" r="2" fill="#E69F00"/></svg>'
)

# Less white space and smaller headings than Streamlit's own: charts and tables are what a reader came for. (No string
# under the name: Streamlit would print it.)
STYLE = """
.stMainBlockContainer { padding: 2.6rem 2.5rem 3rem 2.5rem; }
h1 { font-size: 1.9rem !important; padding: 0.4rem 0 !important; }
h3 { font-size: 1.2rem !important; }
[data-testid="stMetricValue"] { font-size: 1.6rem; }
"""

st.set_page_config(page_title="Ridgeline", page_icon=ICON, layout="wide")
page = st.navigation(list(PAGES))
st.html(f"<style>{STYLE}</style>")
with st.sidebar:
    st.caption(f"Store `{data.store_path()}`")
try:
    page.run()
except Exception as error:
    # A reader gets one line; the traceback goes to the server's log.
    logging.getLogger("ridgeline.dashboard").exception("page %s", page.title)
    st.error(f"This page failed: {type(error).__name__}: {error}. The server's log has the details.")
