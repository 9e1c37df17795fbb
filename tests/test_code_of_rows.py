"""A stage whose code changes gets another version, or old rows pass for those of the new code."""

from __future__ import annotations

import ast
import json

import pytest

from tests import code_of_rows

REMEDY = """the code that decides the rows of {stage} has changed. Where rows may come out otherwise, raise `version` of
its StageSpec in stages/, so that runs are made again; where they cannot, leave it. Then record what is there now:
    python -m tests.code_of_rows"""
STAGES = {stage.name: stage for stage in code_of_rows.stages()}


@pytest.mark.parametrize("name", STAGES)
def test_a_version_stands_for_its_code(name: str) -> None:
    recorded = json.loads(code_of_rows.RECORD.read_text(encoding="utf-8"))
    stage = STAGES[name]
    assert recorded.get(name) == {"version": stage.spec.version, "code": code_of_rows.digest(stage)}, REMEDY.format(
        stage=name
    )


def test_no_other_stage_is_recorded() -> None:
    assert set(json.loads(code_of_rows.RECORD.read_text(encoding="utf-8"))) == set(STAGES)


@pytest.mark.parametrize(
    ("name", "module", "definition"),
    [
        ("stage2_quality", "kun.text.characters", "count"),
        ("stage2_ingest", "kun.corpora.readers", "read_part"),
        ("stage2_lm", "kun.filters.perplexity.lmplz", "make"),
        ("stage3_label", "kun.checks.answers", "BLANK_RUN"),
        ("stage3_label", "kun.models.chat", "Chat"),
        ("stage4_verdicts", "stages.stage4_score", "_verdict_tokens"),
        ("stage4_score", "kun.checks.selection", "best_f1"),
        ("stage5_polish", "kun.text.numerals", "chinese_value"),
        ("stage1_train", "kun.training.sft", "batched_by_length"),
    ],
)
def test_a_change_far_below_changes_the_digest_of_its_stages_only(
    name: str, module: str, definition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {stage: code_of_rows.digest(STAGES[stage]) for stage in STAGES}
    changed = ast.parse(f"def {definition}(): return 'changed'").body[0]
    definitions = {**code_of_rows._definitions(module), definition: changed}
    original, source = code_of_rows._definitions, code_of_rows._source
    monkeypatch.setattr(code_of_rows, "_definitions", lambda one: definitions if one == module else original(one))
    monkeypatch.setattr(code_of_rows, "_source", source.__wrapped__)
    assert code_of_rows.digest(STAGES[name]) != before[name]
    assert any(code_of_rows.digest(STAGES[stage]) == before[stage] for stage in STAGES)


def test_comments_and_docstrings_are_no_code() -> None:
    definition = code_of_rows._definitions("kun.checks.answers")["folded"]
    assert ast.get_docstring(definition) and ast.get_docstring(definition)[:20] not in code_of_rows._source(
        ("kun.checks.answers", "folded")
    )
