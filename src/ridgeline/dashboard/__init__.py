"""The showing: Streamlit pages over the store."""
