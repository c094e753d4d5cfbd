"""Figures: pure functions from a table (and a device) to a Plotly figure; nothing here knows Streamlit or a store."""
