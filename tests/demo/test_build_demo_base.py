"""The script that trains the demo's base: two tiny phases, resumed between them, end in a model that loads."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

pytest.importorskip("torch")
from transformers import AutoModelForCausalLM

from scripts import build_demo_base


def test_plain_texts_are_of_a_length_and_repeatable() -> None:
    texts = [build_demo_base.plain_text(random.Random(f"base {number}")) for number in range(50)]
    assert texts == [build_demo_base.plain_text(random.Random(f"base {number}")) for number in range(50)]
    assert all(10 < len(text) < 900 for text in texts) and len(set(texts)) == 50


@pytest.mark.slow
def test_a_run_that_stopped_after_a_phase_goes_on(tmp_path, monkeypatch) -> None:
    small = {"copying_rows": 2, "copying_length": 16, "document_rows": 1, "document_length": 24}
    phases = tuple(replace(phase, steps=30, **small) for phase in build_demo_base.PHASES)
    monkeypatch.setattr(build_demo_base, "PHASES", phases)
    build_demo_base.train(tmp_path / "base", tmp_path / "work", seed=1, only="copying")
    build_demo_base.train(tmp_path / "base", tmp_path / "work", seed=1)
    report = json.loads((tmp_path / "base/training.json").read_text(encoding="utf-8"))
    assert [phase["name"] for phase in report["phases"]] == ["copying", "reading"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert sum(weight.numel() for weight in model.parameters()) > 1_500_000
