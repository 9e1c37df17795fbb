import json
import math

import pytest

from kun.config.schema import Config, EngineConfig, LanguageModel
from kun.errors import InputError
from kun.filters.perplexity import lm
from kun.filters.perplexity.base_model import open_base
from kun.models.loading import load_weights
from kun.records import Filtered
from kun.store import shards
from tests import tiny_models

TEXTS = [tiny_models.TEXTS[0], "", "好", tiny_models.TEXTS[2], "1 + 1 = 2\n\n第二段。" * 9]
CPU = EngineConfig(device="cpu")


@pytest.mark.parametrize("shape", ["base_llama", "qwen", "yi", "gemma"])
def test_it_is_the_loss_of_transformers(tmp_path, shape):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_models.SHAPES[shape](tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    found = open_base(folder, CPU)(TEXTS)
    for text, ppl in zip(TEXTS, found, strict=True):
        ids = torch.tensor([[begin, *tokenizer.encode(text, add_special_tokens=False)]])
        if text:
            assert ppl == pytest.approx(math.exp(model(input_ids=ids, labels=ids).loss.item()), rel=1e-4)
        else:
            assert ppl == model.config.vocab_size


def test_batches_change_nothing(tmp_path):
    folder = tiny_models.qwen(tmp_path)
    small = open_base(folder, EngineConfig(device="cpu", batch_tokens=1))
    assert small(TEXTS) == pytest.approx(open_base(folder, CPU)(TEXTS), rel=1e-4)
    assert lm.perplexities(folder, TEXTS[:1], CPU) == pytest.approx(small(TEXTS[:1]), rel=1e-4)


def test_a_control_token_in_a_text_is_text(tmp_path):
    folder = tiny_models.qwen(tmp_path)
    assert math.isfinite(open_base(folder, CPU)(["<|im_end|>" * 3])[0])
    plain, control = open_base(folder, CPU)(["<|im_end|>", "<|im_end |>"])
    assert plain != control


def test_what_is_over_the_window_does_not_count(tmp_path):
    folder = tiny_models.base_llama(tmp_path)  # 512 tokens
    perplexities = open_base(folder, CPU)
    assert perplexities(["好" * 2000]) == pytest.approx(perplexities(["好" * 4000]), rel=1e-6)


def test_a_folder_without_weights(tmp_path):
    tiny_models.qwen(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"base_model: the model in .* cannot be loaded"):
        open_base(tmp_path, CPU)


def test_there_is_one_language_model():
    with pytest.raises(ValueError, match="exclude each other"):
        LanguageModel(base=True, model="lm")
    with pytest.raises(ValueError, match="exclude each other"):
        LanguageModel(base=True, estimate_from="clean.jsonl")
    assert Config().filter.lm.base is False


@pytest.mark.slow
def test_the_filter_of_a_run_goes_by_the_base_model(tmp_path):
    from tests.runs import kun

    folder = tiny_models.qwen(tmp_path / "base")
    texts = ["".join(chr(0x4E00 + (17 * n + m) % 300) for m in range(20 + n)) for n in range(12)]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "my.yaml").write_text(
        "run: run\nbase_model: base\nworkers: 2\nengine: {device: cpu}\ningest: {shard_rows: 4}\n"
        "corpora: {web: {paths: [corpus.jsonl], format: jsonl}}\n"
        "filter: {lm: {base: true}, ppl_min: null, ppl_max: p50, near_duplicates: null, "
        "quality: {rare_characters: null}}\n"
    )
    done = kun(tmp_path, "run", "stage2", "--config", "my.yaml")
    assert "stage2_filter/web: 12 in, 6 kept, 6 rejected (ppl_high 6)" in done.stdout, done.stderr
    kept = list(shards.read_all(tmp_path / "run/stage2_filter/web", Filtered))
    expected = open_base(folder, CPU)([record.text for record in kept])
    assert [record.ppl for record in kept] == pytest.approx(expected, rel=1e-4)
    assert "nothing to do" in kun(tmp_path, "run", "stage2", "--config", "my.yaml").stdout
    tiny_models.qwen(tmp_path / "base", tied=True)
    assert "base_model changed" in kun(tmp_path, "status", "run").stdout


def test_a_tokenizer_without_a_token_to_begin_with(tmp_path):
    tiny_models.qwen(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": config["chat_template"]}))
    with pytest.raises(InputError, match=r"base_model: .* neither BOS nor EOS, .*; name its eos_token in"):
        open_base(tmp_path, CPU)


def test_a_folder_without_a_model(tmp_path):
    tiny_models.qwen(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=f"base_model: {tmp_path} is not a model folder: it has no config.json"):
        load_weights(tmp_path, "auto")
