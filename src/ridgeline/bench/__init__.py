"""The measuring: plan, isolated worker, timing, roofs and the ``ridgeline`` command."""
