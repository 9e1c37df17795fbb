"""The demo commands: a world may be anywhere, and needs no lmplz."""

from __future__ import annotations

import argparse

from kun.config.files import load
from tests.runs import kun


def test_without_lmplz_a_demo_world_uses_the_shipped_language_model(tmp_path, monkeypatch):
    monkeypatch.setattr("kun.filters.perplexity.lmplz.find_program", lambda name: None)
    from kun.cli.demo import _demo_data

    _demo_data(argparse.Namespace(out=tmp_path / "world", seed=12), [])
    config = load(tmp_path / "world" / "config.yaml")
    done = kun(tmp_path, "run", "stage2", "--config", tmp_path / "world" / "config.yaml", "--workers", "1")
    assert config.filter.lm.estimate_from is None and config.filter.lm.model
    assert done.returncode == 0, done.stderr
    assert "ppl_high" in done.stdout


def test_a_demo_world_may_be_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("kun.demo.world.write_world", lambda out, seed: out.mkdir())
    from kun.cli.demo import _demo_data

    out = tmp_path / "a, b: [c] #1"
    _demo_data(argparse.Namespace(out=out, seed=12), [])
    config = load(out / "config.yaml")
    assert config.seeds.pairs == str(out / "seeds.jsonl")
    assert config.corpora["wudao"].paths == (str(out / "corpora/wudao"),)
