"""The ledger of papers: complete, consistent, and one clear line for what is wrong in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.claim_models import MODELS
from ridgeline.results.ledger import Claim, PapersError, find_papers, load_ledger

PER_CATEGORY = {"K": 25, "M": 15, "S": 25, "A": 4, "T": 10}
WHOLE = """
id = "a"
number = 1
title = "A"
category = "K"
families = ["K1"]
mechanism = "m"
[[claim]]
metric = "speed"
value = 2
unit = "x"
baseline = "b"
hardware = "not stated"
condition = "c"
source = "abstract"
verified = true
[[check]]
name = "agrees"
kind = "correctness"
states = "it agrees"
"""


def test_all_rows_are_there_each_with_claims_and_checks() -> None:
    ledger = load_ledger()
    assert [paper.number for paper in ledger.values()] == list(range(1, 80))
    assert {c: sum(p.category == c for p in ledger.values()) for c in PER_CATEGORY} == PER_CATEGORY
    for paper in ledger.values():
        assert paper.claims, paper.id
        assert all(c.source and (c.value is not None) != bool(c.states) for c in paper.claims), paper.id
        kinds = {check.kind for check in paper.checks}
        assert len(paper.checks) >= 2, paper.id
        assert kinds - {"ratio"}, paper.id
        if paper.category == "K":
            assert {"correctness", "ratio"} <= kinds, paper.id


def test_what_claims_name_is_there() -> None:
    claims = [c for paper in load_ledger().values() for c in paper.claims]
    assert {c.prediction for c in claims if c.prediction} == set(MODELS)
    assert {device for c in claims for device in c.devices} <= set(catalogue())
    assert not any(c.verified for c in claims if c.source not in ("abstract", "title"))


def test_a_figure_reads_as_it_was_meant() -> None:
    stated = {"metric": "m", "baseline": "b", "hardware": "h", "condition": "c", "source": "s", "verified": False}
    for fields, text in (
        ({"value": 4.86, "unit": "x", "comparison": "up to"}, "up to 4.86x"),
        ({"value": 17, "unit": "%"}, "17 %"),
        ({"value": 2.3, "value_high": 3.6, "unit": "x", "comparison": "range"}, "2.3 to 3.6x"),
        ({"value": 1.12, "unit": "x less"}, "1.12x less"),
        ({"value": 6.09}, "6.09"),
        ({"value": 9.5, "unit": "tokens/s", "comparison": "~"}, "about 9.5 tokens/s"),
        ({"states": "faster"}, "faster"),
    ):
        assert Claim.model_validate({**stated, **fields}).published == text


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (('id = "a"', 'id = "b"'), "a.toml: id: 'b' is not the file's name: rename one"),
        (("value = 2", ""), "a.toml: claim.0: give `value`, or `states` where there is no number; not both"),
        (("value = 2", "value = 2\nvalue_high = 1"), "a.toml: claim.0: `value_high` and comparison `range` belong together"),
        (('source = "abstract"', ""), "a.toml: claim.0.source: Field required"),
        (('kind = "correctness"', 'kind = "speed"'), "a.toml: check.0.kind: Input should be 'correctness'"),
        (('metric = "speed"', 'metric = "speed"\ncheck = "runs"'), "a.toml: claim 'speed': check: no check 'runs'"),
        (('metric = "speed"', 'metric = "speed"\ncolour = 1'), "a.toml: claim.0.colour: Extra inputs are not permitted"),
        (("[[check]]", "[check]"), "a.toml: check: Input should be a valid tuple"),
        (("number = 1", "number = "), "a.toml: Invalid value (at line 3, column 10)"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path: Path, change: tuple[str, str], line: str) -> None:
    (tmp_path / "a.toml").write_text(WHOLE)
    assert list(load_ledger(tmp_path)) == ["a"]
    (tmp_path / "a.toml").write_text(WHOLE.replace(*change))
    with pytest.raises(PapersError) as caught:
        load_ledger(tmp_path)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_two_rows_with_one_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(WHOLE)
    (tmp_path / "b.toml").write_text(WHOLE.replace('id = "a"', 'id = "b"'))
    with pytest.raises(PapersError, match=r"^b.toml: number: 1 is also that of a$"):
        load_ledger(tmp_path)


def test_papers_are_found_by_id_and_near_names_are_said() -> None:
    assert [p.id for p in find_papers(["medusa", "h2o", "medusa"])] == ["medusa", "h2o"]
    assert len(find_papers([])) == 79
    with pytest.raises(PapersError, match=r"^no paper 'flashsigmoids': did you mean flashsigmoid"):
        find_papers(["flashsigmoids"])
    with pytest.raises(PapersError, match=r"^no paper '!!!': `ridgeline papers` lists them$"):
        find_papers(["!!!"])
