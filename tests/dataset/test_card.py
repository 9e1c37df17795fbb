"""The card: a header that the hub's own library reads, and no name or setting that gets out of its place."""

import re

import pytest

from kun.config.schema import Config
from kun.dataset.card import ALGORITHM, CARD, Card, PersonalData, read_card, render_card
from kun.pipeline.run_folder import StepManifest
from kun.pipeline.status import State
from stages.stage5_polish import FINAL

ROWS = {"wudao": 1200, "null": 3, "2024-01-01": 0}
FILES = {f"{name}.jsonl": f"{number:032}" for number, name in enumerate(ROWS)} | {"lineage.parquet": "1e" + "0" * 30}


def written(tmp_path, config=None, funnel=(), personal=()) -> str:
    text = render_card(config or Config(), FINAL, ROWS, FILES, funnel, personal)
    (tmp_path / CARD).write_text(text, encoding="utf-8")
    return text


@pytest.mark.slow
def test_the_header_is_what_the_hub_reads(tmp_path):
    from huggingface_hub import DatasetCard

    written(tmp_path)
    data = DatasetCard.load(tmp_path / CARD).data.to_dict()
    # All of them, then each; an empty file cannot be loaded.
    assert [one["config_name"] for one in data["configs"]] == ["default", "wudao", "null"]
    assert [one["config_name"] for one in data["dataset_info"]] == ["default", "wudao", "null"]
    assert data["files"] == {name: f"{ALGORITHM} {digest}" for name, digest in FILES.items()}
    assert (data["language"], data["size_categories"]) == (["zh"], ["1K<n<10K"])


def test_the_digests_are_read_from_the_header(tmp_path):
    assert read_card(tmp_path) == Card()
    text = written(tmp_path)
    assert read_card(tmp_path) == Card(frozenset(FILES.items()))
    (tmp_path / CARD).write_text(text + "more", encoding="utf-8")
    assert read_card(tmp_path).problem == "its text is not the one that its header has the digest of"


@pytest.mark.parametrize(
    "content", ["", "# Another", "---\nlicense: mit\n---\n", "---\nconfigs:\n- data_files: [a]\n---"]
)
def test_a_card_that_kun_did_not_write_has_no_digests(tmp_path, content):
    (tmp_path / CARD).write_text(content, encoding="utf-8")
    assert read_card(tmp_path) == Card()


@pytest.mark.parametrize("header", ["[" * 5000, "a: \x1b[31m", "a: b: c", "files: [a]", "configs: x", "- a", "\xff"])
def test_a_header_that_cannot_be_read_is_a_problem(tmp_path, header):
    (tmp_path / CARD).write_text(f"---\n{header}\n---\n", encoding="latin-1")
    problem = read_card(tmp_path).problem
    assert problem.startswith("its header cannot be read") and "\x1b" not in problem


def test_aliases_do_not_multiply(tmp_path):
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60))]
    (tmp_path / CARD).write_text("---\n" + "\n".join(lines) + "\n---\n", encoding="utf-8")
    assert read_card(tmp_path) == Card()


def test_a_funnel_and_personal_data_are_tables(tmp_path):
    counts = StepManifest(rows=2000, kept=1200, rejected={"phone": 700, "too_short": 98}, failed=2)
    funnel = [State("stage2", "stage2_filter", "wudao", "complete", (), counts, True)]
    text = written(tmp_path, funnel=funnel, personal=[PersonalData("phone", "phone numbers", 10, 3, 700)])
    assert "| wudao | 1,200 |\n| null | 3 |\n" in text
    assert "| stage2_filter/wudao | 2,000 | 1,200 | 798 | 2 | phone 700, too_short 98 |\n\n" in text
    assert "| phone numbers (`phone`) | 10 | 3 | 700 |\n\n## Models" in text


@pytest.mark.parametrize("name", ["<script>", "`", "a\n# b", "a\r\n---\nb", "{{ 7 * 7 }}", "![x](http://x)`<img>"])
def test_names_stay_in_their_place(tmp_path, name):
    text = written(tmp_path, Config(base_model=name, prompts=name))
    prose = text.partition("## Models and settings")[2].partition("```")[0]
    (line,) = [line for line in prose.splitlines() if line.startswith("Base model")]
    assert re.fullmatch(r"Base model `[^`<>\n]*`, prompts `[^`<>\n]*`\.", line)
    assert not read_card(tmp_path).problem


def test_settings_stay_inside_their_fence(tmp_path):
    text = written(tmp_path, Config(seeds={"pairs": "`````\n<b>\n---\n{{ 7 * 7 }}"}))
    fence = re.search("^(`{6,})yaml$", text, re.MULTILINE)
    settings = text.partition(fence[1] + "yaml\n")[2].partition(f"\n{fence[1]}\n")[0]
    assert "<b>" in settings and "7 * 7" in settings and fence[1] not in settings
