"""A run is measured against the gold key of its own world only."""

from __future__ import annotations

from pathlib import Path

import pytest

from kun.config.files import load
from kun.config.schema import Config, Corpus, Seeds
from kun.demo.measure import measure, score
from kun.errors import InputError
from kun.pipeline.run_folder import RunFolder
from tests.runs import kun, small_world


def test_a_run_on_other_corpora_is_an_error(tmp_path: Path) -> None:
    configuration = small_world(tmp_path)
    more = tmp_path / "more.jsonl"
    more.write_text('{"text": "这是一段不属于演示世界的文字，介绍怎样保存新鲜的蔬菜和水果。"}\n', encoding="utf-8")
    other = tmp_path / "other.yaml"
    other.write_text(
        f"extends: {configuration.name}\ncorpora: {{web: {{paths: [{more}], format: jsonl}}}}\n"
        "filter: {lm: {estimate_from: null}, ppl_min: null, ppl_max: null}\n",
        encoding="utf-8",
    )
    done = kun(tmp_path, "run", "stage2", "--config", other, "--workers", "1")
    assert done.returncode == 0, done.stderr
    with pytest.raises(InputError, match=r"1 rows are not in the gold key .*world/gold, .*row 0 of more\.jsonl in web"):
        measure(RunFolder(tmp_path / "run"), load(other))


def test_what_a_run_lacks_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(InputError, match="run: has no seeds, so it is no run on a demo world"):
        measure(run, Config())
    seeds = tmp_path / "world" / "seeds.jsonl"
    config = Config(seeds=Seeds(pairs=str(seeds)), corpora={"web": Corpus(paths=("a",), format="text")})
    with pytest.raises(InputError, match=r"world/gold/documents\.jsonl: No such .* needs the gold key"):
        measure(run, config)
    (seeds.parent / "gold").mkdir(parents=True)
    for name in ("documents", "instructions"):
        (seeds.parent / "gold" / f"{name}.jsonl").write_text("")
    with pytest.raises(InputError, match="stage2_filter/web: has no rows yet; run `kun run stage2` first"):
        measure(run, config)
    with pytest.raises(InputError, match="stage1_train/chat: there is no primary chat yet; run `kun run stage1` first"):
        score(run, config, [])
