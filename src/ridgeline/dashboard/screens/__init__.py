"""Pages of the dashboard: one Streamlit script each, run by :mod:`ridgeline.dashboard.app`, never imported."""
