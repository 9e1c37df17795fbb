"""What a base needs is read from it: models that were taught to read after BOS, or without it, and to end in EOS."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kun.models.chat import Message, load_chat
from kun.models.needs import CLEAR, UNSEEN, Needs, needs_of
from tests.tiny_models import GEMMA_TEMPLATE, QUESTION, SENTENCES, base_gemma, base_llama, configure, taught, yi

PAIRS = [(QUESTION, text) for text in SENTENCES]
ASKED = [Message("user", "问")]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reads_after_bos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer puts no BOS, as converted ones do; it has turn markers, which it has never seen."""
    return taught(base_gemma(tmp_path_factory.mktemp("after_bos")))


def of(base: Path, **settings: str) -> Needs:
    configure(base, **{"chat_template": None, **settings})
    return needs_of(base, PAIRS)


def test_a_base_that_reads_after_bos_gets_it(reads_after_bos: Path, tmp_path: Path) -> None:
    assert load_chat(reads_after_bos).prompt(ASKED)[0] != 2
    found = of(reads_after_bos)
    bos = found.measured["bos"]
    assert bos["used"] and bos["token"] == "<bos>" and bos["with"] < 0.5 * bos["without"]
    assert any("where <bos> comes first" in text and "prompts begin with it" in text for text in found.told)
    assert found.chat.prompt(ASKED)[0] == 2
    found.chat.save(tmp_path)
    assert load_chat(tmp_path).prompt(ASKED) == found.chat.prompt(ASKED)


def test_a_template_without_the_bos_that_its_base_wants_gets_it(reads_after_bos: Path) -> None:
    template = "{% for message in messages %}{{ message.role }}\n{{ message.content }}<eos>\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant\n{% endif %}"
    assert of(reads_after_bos, chat_template=template).chat.prompt(ASKED)[0] == 2


def test_a_base_that_reads_without_bos_gets_none(tmp_path: Path) -> None:
    base = taught(base_llama(tmp_path), after_bos=False)
    bos = load_chat(base).files.id("<s>")
    assert load_chat(base).prompt(ASKED)[0] == bos  # so its tokenizer says
    found = of(base)
    assert found.chat.prompt(ASKED) == load_chat(base).prompt(ASKED)[1:]
    assert any("prompts begin without it" in text for text in found.told)
    turns = "{% for message in messages %}{{ message.role }}\n{{ message.content }}</s>\n{% endfor %}assistant\n"
    assert of(base, chat_template="{{ bos_token }}" + turns).chat.prompt(ASKED)[0] != bos
    needs_it = of(base, chat_template="<s>" + turns)
    assert needs_it.chat.prompt(ASKED)[0] == bos and needs_it.measured["bos"] is None


def test_turns_are_written_with_what_the_base_knows(reads_after_bos: Path) -> None:
    found = of(reads_after_bos)
    turns = found.measured["turns"]
    assert set(turns) == {"EOS between turns", "<start_of_turn> and <end_of_turn>", "used"}
    assert turns[turns["used"]] <= min(turns[name] for name in set(turns) - {"used"}) / (1 - CLEAR)
    assert not found.chat.new_rows
    assert found.chat.files.raw.id_to_token(found.chat.end_id) == "<eos>"


def test_an_end_token_that_was_never_trained_starts_as_eos(reads_after_bos: Path) -> None:
    import torch

    from kun.models.loading import load_base, load_weights

    template = "{{ bos_token }}{% for message in messages %}{{ message.role }}\n{{ message.content }}"
    template += "{{ '<end_of_turn>' if message.role == 'assistant' else '<eos>' }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant\n{% endif %}"
    found = of(reads_after_bos, chat_template=template)
    end, files = found.measured["end"], found.chat.files
    eos, own = files.id("<eos>"), files.id("<end_of_turn>")
    assert not end["known"] and end["loss"] > max(UNSEEN * end["by chance"], end["<eos>"])
    assert found.chat.end_id == own and found.chat.new_rows == {own: eos} and found.chat.end_ids == (own, eos)
    assert any("<end_of_turn>, was never trained" in text for text in found.told)
    before = load_weights(reads_after_bos, torch.float32).get_input_embeddings().weight
    after = load_base(reads_after_bos, found.chat, torch.float32).get_input_embeddings().weight
    assert torch.equal(after[own], before[eos]) and not torch.equal(before[own], before[eos])
    assert (after != before).any(dim=1).nonzero().flatten().tolist() == [own]


def test_a_template_without_a_system_turn_is_told(reads_after_bos: Path) -> None:
    assert (
        "its template takes no system turn: the text of one opens the user's turn"
        in of(reads_after_bos, chat_template=GEMMA_TEMPLATE).told
    )
    assert not any("system turn" in text for text in of(reads_after_bos).told)


def test_new_tokens_start_from_those_that_mean_the_same(tmp_path: Path) -> None:
    import torch

    from kun.models.loading import load_base, load_weights
    from tests.tiny_models import stranger

    base = stranger(tmp_path)
    chat = needs_of(base, PAIRS).chat
    ids = chat.files.id
    assert chat.new_rows == {ids("<|turn|>"): ids("<s>"), ids("<|stop|>"): ids("</s>")}
    before = load_weights(base, torch.float32).get_input_embeddings().weight
    after = load_base(base, chat, torch.float32).get_input_embeddings().weight
    assert all(torch.equal(after[new], before[alike]) for new, alike in chat.new_rows.items() if alike is not None)


def test_a_vocabulary_without_an_end_gets_one(tmp_path: Path) -> None:
    base = yi(tmp_path)
    configure(base, eos_token=None, pad_token=None)
    found = needs_of(base, PAIRS)
    assert found.chat.new_ids == tuple(found.chat.files.id(token) for token in ("<|im_start|>", "<|im_end|>"))
    assert found.chat.prompt(ASKED)[0] == found.chat.new_ids[0]
    assert any("neither a chat template nor an EOS" in text for text in found.told)


def test_what_is_measured_is_the_same_again(reads_after_bos: Path) -> None:
    one, other = of(reads_after_bos), of(reads_after_bos)
    assert json.dumps(one.measured) == json.dumps(other.measured) and one.told == other.told
    assert all(math.isfinite(loss) for loss in one.measured["turns"].values() if isinstance(loss, float))
