"""aiconfigurator's side of `surfaces_speed.py`; runs in an environment of its own, where Ridgeline need not be installed.

A line of JSON for each line asked: seconds of `run_static_latency_only` (its fastest call) over all points, and milliseconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time


def main() -> None:
    """Load the tables once, then answer until the input ends."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    began = time.perf_counter()
    from aiconfigurator.sdk import common, config
    from aiconfigurator.sdk.backends.factory import get_backend
    from aiconfigurator.sdk.inference_session import InferenceSession
    from aiconfigurator.sdk.models import get_model
    from aiconfigurator.sdk.perf_database import get_database

    system, backend, version, name = sys.argv[1:5]
    database = get_database(system, backend, version)
    database.set_default_database_mode(common.DatabaseMode.SILICON)
    model = get_model(
        name,
        config.ModelConfig(
            tp_size=1, pp_size=1, gemm_quant_mode=common.GEMMQuantMode.bfloat16,
            kvcache_quant_mode=common.KVCacheQuantMode.bfloat16, fmha_quant_mode=common.FMHAQuantMode.bfloat16,
        ),
        backend,
    )  # fmt: skip
    session = InferenceSession(model, database, get_backend(backend))

    def step_ms(phase: str, batch: int, length: int) -> float | None:
        decode = phase == "decode"
        load = config.RuntimeConfig(batch_size=batch, isl=length - 1 if decode else length, osl=2)
        try:
            return float(session.run_static_latency_only(load, "static_gen" if decode else "static_ctx"))
        except Exception:  # What its tables do not hold, each backend refuses in a way of its own.
            return None

    for phase in ("decode", "prefill"):
        step_ms(phase, 4, 512)
    print(json.dumps({"version": importlib.metadata.version("aiconfigurator"), "seconds": time.perf_counter() - began}))
    sys.stdout.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        found = [step_ms(asked["phase"], batch, length) for batch, length in asked["points"]]
        print(json.dumps({"seconds": time.perf_counter() - began, "predicted_ms": found}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
