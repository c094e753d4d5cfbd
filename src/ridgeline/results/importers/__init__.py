"""Reading what other tools measured: timings of their own, and counters to stand beside ours."""
