"""``ridgeline model table`` and ``ridgeline list models``, in process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ridgeline.analytical.calibration.public_tables import data_root
from ridgeline.bench import cli

H100 = ("--device", "nvidia-h100-sxm5-80gb")


def table(*arguments: str) -> dict[str, Any]:
    """The JSON document of a table."""
    done = CliRunner().invoke(cli.app, ["model", "table", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def refused(*arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The one line of a command that is refused."""
    monkeypatch.setattr(sys, "argv", ["ridgeline", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    return err


def test_a_table_of_each_phase() -> None:
    document = table("llama-3-8b", *H100)
    assert (document["model"], document["device"], document["formulas"]) == ("llama-3-8b", H100[1], "ridgeline")
    prefill, decode = document["phases"]
    assert (prefill["phase"], decode["phase"]) == ("prefill", "decode")
    assert prefill["seconds"] == pytest.approx(30.3e-3, rel=2e-3)
    assert decode["seconds"] == pytest.approx(4.56e-3, rel=2e-3)
    for phase in document["phases"]:
        kept = [row for row in phase["operators"] if not row["fused"]]
        assert sum(row["share"] for row in kept) == pytest.approx(1.0)
        assert sum(row["seconds"] for row in kept) == pytest.approx(phase["seconds"])
        assert sum(row["seconds"] for row in phase["operators"]) == pytest.approx(phase["unfused_s"])
        assert sum(row["operations"] for row in phase["operators"]) == pytest.approx(phase["operations"])
    by_name = {row["operator"]: row for row in decode["operators"]}
    assert by_name["gate_up"]["bound_by"] == "HBM"
    assert {row["operator"]: row for row in prefill["operators"]}["gate_up"]["bound_by"] == "matrix bfloat16"
    for phase in document["phases"]:
        assert phase["evidence"] == "fitted"
        assert sum(row["predicted_s"] for row in phase["operators"]) == pytest.approx(phase["predicted_s"])
        assert phase["unfused_s"] < phase["predicted_s"] < 3 * phase["unfused_s"]
    memory = document["memory"]
    assert memory["fits"]
    assert memory["weights_bytes"] == 2 * document["parameters"]


@pytest.mark.skipif(data_root() is None, reason="needs the extra `data` (public tables)")
def test_a_table_is_predicted_by_measured_kernels_where_asked() -> None:
    plain, measured = (
        table("llama-3-8b", *H100, "--phase", "decode", "--batch", "64", *more)["phases"][0]
        for more in ((), ("--software", "vllm"))
    )
    assert (plain["evidence"], measured["evidence"]) == ("fitted", "surface")
    assert measured["predicted_s"] == pytest.approx(plain["predicted_s"], rel=0.3)
    own, theirs = ({r["operator"]: r["predicted_s"] for r in phase["operators"]} for phase in (plain, measured))
    assert own["qkv"] != theirs["qkv"]
    assert own["embedding"] == theirs["embedding"]


def test_no_constants_of_accelerators_are_used_for_a_cpu() -> None:
    precisions = [arg for name in ("activations", "weights", "kv") for arg in (f"--{name}", "float32")]
    (phase,) = table("gpt2", "--device", "amd-epyc-9654", "--phase", "decode", *precisions)["phases"]
    assert (phase["predicted_s"], phase["evidence"]) == (None, None)


def test_every_phase_and_layout_has_a_table() -> None:
    phases = [arg for name in ("prefill", "decode", "chunked", "mixed", "verify") for arg in ("--phase", name)]
    document = table(
        "mixtral-8x7b", *H100, *phases, "--batch", "16", "--context", "1000", "--tp", "2", "--dp", "2", "--ep", "4",
        "--weights", "float8_e4m3fn", "--activations", "float8_e4m3fn", "--kv", "float8_e4m3fn",
        "--keep", "lm_head=bfloat16", "--launch-us", "2",
    )  # fmt: skip
    assert [phase["phase"] for phase in document["phases"]] == ["prefill", "decode", "chunked", "mixed", "verify"]
    decode = document["phases"][1]
    assert {"all_reduce", "dispatch", "combine"} <= {row["operator"] for row in decode["operators"]}
    assert decode["overhead_s"] == pytest.approx(2e-6 * decode["launches"])
    assert document["layout"] == "tp2 ep4 dp2"
    assert document["precisions"] == "w float8_e4m3fn a float8_e4m3fn kv float8_e4m3fn lm_head bfloat16"


def test_encoders_have_their_own_phase() -> None:
    assert [phase["phase"] for phase in table("vit-b-16", *H100)["phases"]] == ["encoder"]
    whisper = table("whisper-large-v3", *H100, "--prompt", "4", "--context", "448", "--batch", "4")
    assert [phase["phase"] for phase in whisper["phases"]] == ["encoder", "prefill", "decode"]
    assert whisper["phases"][0]["tokens"] == 4 * 1500


def test_a_config_file_and_its_notes(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 100,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    document = table(str(tmp_path), *H100)
    assert document["model"] == tmp_path.name
    assert "num_key_value_heads = 4" in document["notes"][-1]


def test_parity_is_llm_viewers_own_table() -> None:
    document = table("llama-3-8b", *H100, "--parity", "llm-viewer", "--batch", "32", "--flash")
    assert document["phases"][1]["seconds"] == pytest.approx(16.25e-3, rel=1e-3)
    assert document["formulas"] == "llm-viewer 472f71f flash"
    assert any(note.startswith("flash loses GQA") for note in document["notes"])


def test_parity_knows_its_own_names_and_ours() -> None:
    ours, theirs, alias = (
        table("llama-2-7b", "--device", name, "--parity", "llm-viewer")["phases"]
        for name in ("nvidia-h100-sxm5-80gb", "nvidia_H100_SXM", "nvidia-h100-sxm")
    )
    assert ours == theirs == alias


def test_people_get_a_table() -> None:
    done = CliRunner().invoke(cli.app, ["model", "table", "gpt2", *H100, "--phase", "decode"])
    assert done.exit_code == 0
    assert "gpt2 (0.1244 B parameters) on nvidia-h100-sxm5-80gb" in done.stdout
    assert "decode: at least" in done.stdout
    assert "qkv" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("llama-9", *H100), "llama-9: no file and no built-in model"),
        (("llama-3-8b", "--device", "nvidia-h900"), "nvidia-h900"),
        (("llama-3-8b", *H100, "--phase", "training"), "unknown phase 'training': one of prefill"),
        (("llama-3-8b", *H100, "--weights", "bf16"), "weights: unknown precision 'bf16'"),
        (("llama-3-8b", *H100, "--tp", "3"), "which 3 devices do not divide"),
        (("llama-3-8b", *H100, "--batch", "0"), "sequences: must be at least 1"),
        (("llama-3-8b", *H100, "--keep", "lm_head"), "must be OPERATOR=PRECISION"),
        (("llama-3-8b", *H100, "--flash"), "--flash: belongs to --parity"),
        (("llama-3-8b", *H100, "--activations", "int8"), "activations: int8 products need weights of as few bits"),
        (("llama-3-8b", *H100, "--software", "ollama"), "--software: no public table of 'ollama': one of vllm, sglang"),
        (("llama-3-8b", *H100, "--overlap", "2"), "overlap: must lie between 0 and 1"),
        (("llama-3-8b", *H100, "--parity", "genz"), "--parity: unknown 'genz'"),
        (("mamba-2.8b", *H100, "--parity", "llm-viewer"), "dense decoders with a gated MLP only"),
        (("llama-3-70b", *H100), "llama-3-70b does not fit: needs 142.2 GB, nvidia-h100-sxm5-80gb has 80.0 GB; --tp 2"),
        (
            ("llama-3-8b", "--device", "nvidia-a100-sxm4-80gb", "--weights", "int4", "--activations", "float8_e4m3fn"),
            "nothing is substituted: choose --activations that it has",
        ),
    ],
)
def test_a_bad_request_is_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refused("model", "table", *arguments, capsys=capsys, monkeypatch=monkeypatch)


def test_what_does_not_fit_is_shown_when_asked_for() -> None:
    memory = table("llama-3-70b", *H100, "--any-size")["memory"]
    assert (memory["fits"], memory["largest_batch"]) == (False, 0)
    assert memory["reason"].startswith("does not fit: needs 142.2 GB")


def test_the_list_of_models() -> None:
    done = CliRunner().invoke(cli.app, ["list", "models", "--json"])
    assert done.exit_code == 0
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    assert len(rows) >= 30
    llama = rows["llama-3-8b"]
    assert (llama["parameters"], llama["attention"], llama["layers"]) == (8030261248, "GQA", 32)
    assert (llama["experts"], rows["mixtral-8x7b"]["experts"]) == (None, 8)
    assert rows["mixtral-8x7b"]["active_parameters"] < rows["mixtral-8x7b"]["parameters"] / 3
    assert CliRunner().invoke(cli.app, ["list", "models"]).exit_code == 0
