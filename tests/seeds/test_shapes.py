"""A row gives the pairs that its publisher meant, or is refused by name; nothing of a prompt is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from kun.config.schema import SeedFields, Speakers
from kun.seeds.pairs import Fault, SeedPair
from kun.seeds.shapes import Found, Reading, read_row


def found(row: Any, reading: Reading | None = None) -> list[Found]:
    return list(read_row(row, reading or Reading()))


def pairs(row: Any, reading: Reading | None = None) -> list[SeedPair | Fault]:
    return [pair for one in found(row, reading) for pair in one.pairs]


def said(*texts: str, names: tuple[str, str] = ("from", "value"), who: str = "human gpt") -> list[dict[str, str]]:
    return [{names[0]: who.split()[number % 2], names[1]: text} for number, text in enumerate(texts)]


TWO_TURNS = [SeedPair("问", "答"), SeedPair("再问", "再答", history=(("问", "答"),))]
ROWS: dict[str, tuple[Any, list[SeedPair]]] = {
    "plain": ({"instruction": "问", "output": "答"}, [SeedPair("问", "答")]),
    "alpaca": ({"instruction": "译", "input": "水", "output": "water"}, [SeedPair("译", "water", "水")]),
    "alpaca, nothing in input": ({"instruction": "问", "input": " ", "output": "答"}, [SeedPair("问", "答")]),
    "alpaca, <noinput>": ({"instruction": "问", "input": "<noinput>", "output": "答"}, [SeedPair("问", "答")]),
    "the input is all": ({"instruction": "", "input": "问", "output": "答"}, [SeedPair("问", "答")]),
    "only an input": ({"input": "问", "output": "答"}, [SeedPair("问", "答")]),
    "input null": ({"instruction": "问", "input": None, "output": "答"}, [SeedPair("问", "答")]),
    "system": ({"instruction": "问", "output": "答", "system": "你是医生"}, [SeedPair("问", "答", system="你是医生")]),
    "history": ({"instruction": "再问", "output": "再答", "history": [["问", "答"]]}, TWO_TURNS),
    "empty history": ({"instruction": "问", "output": "答", "history": [], "system": ""}, [SeedPair("问", "答")]),
    "dolly": ({"instruction": "谁?", "context": "文", "response": "他", "category": "qa"},
        [SeedPair("谁?", "他", "文")]),
    "prompt": ({"prompt": "问", "completion": "答"}, [SeedPair("问", "答")]),
    "question": ({"question": "问", "answer": "答", "id": 3}, [SeedPair("问", "答")]),
    "sharegpt": ({"conversations": said("问", "答", "再问", "再答")}, TWO_TURNS),
    "messages": ({"messages": said("问", "答", names=("role", "content"), who="user assistant")},
        [SeedPair("问", "答")]),
    "messages in a cell": ({"messages": '[{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]'},
        [SeedPair("问", "答")]),
    "a list of messages": (said("问", "答", "再问", "再答"), TWO_TURNS),
    "system message": ({"messages": [{"role": "system", "content": "简短"}, *said("问", "答")]},
        [SeedPair("问", "答", system="简短")]),
    "system beside": ({"system": "简短", "conversations": said("问", "答")}, [SeedPair("问", "答", system="简短")]),
    "typed parts": ({"messages": [
        {"role": "user", "content": [{"type": "text", "value": "问"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "答"}]},
    ]}, [SeedPair("问", "答")]),
    "firefly": ({"conversation": [{"human": "问", "assistant": "答"}, {"human": "再问", "assistant": "再答"}]},
        TWO_TURNS),
    "nobody replied to the last": ({"conversations": said("问", "答", "还有")}, [SeedPair("问", "答")]),
    "instances": ({"instruction": "译", "instances": [{"input": "水", "output": "water"}, {"output": "?"}]},
        [SeedPair("译", "water", "水"), SeedPair("译", "?")]),
    "nested lists": ([{"instruction": "问", "output": "答"}, {"instruction": "问二", "output": "答"}],
        [SeedPair("问", "答"), SeedPair("问二", "答")]),
    "llama2-chinese": ({"text": "<s>Human: 问\nA: 好\n</s><s>Assistant: 答\n</s>"}, [SeedPair("问\nA: 好", "答")]),
    "guanaco": ({"text": "### Human: 问### Assistant: 答"}, [SeedPair("问", "答")]),
    "hh": ({"text": "\n\nHuman: 问\n\nAssistant: 答\nHuman: 是词"}, [SeedPair("问", "答\nHuman: 是词")]),
    "chatml": ({"text": "<|im_start|>user\n问<|im_end|>\n<|im_start|>assistant\n答<|im_end|>\n"},
        [SeedPair("问", "答")]),
    "llama2": ({"text": "<s>[INST] <<SYS>>简短<</SYS>> 问 [/INST] 答 </s><s>[INST] 再问 [/INST] 再答 </s>"},
        [SeedPair("问", "答", system="简短"), SeedPair("再问", "再答", system="简短", history=(("问", "答"),))]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_gives_its_pairs(name: str) -> None:
    row, expected = ROWS[name]
    assert [pair for pair in pairs(row) if isinstance(pair, SeedPair)] == expected


REFUSED: dict[str, tuple[Any, str, str]] = {
    "a preference pair": (
        {"prompt": "问", "chosen": "好", "rejected": "坏"}, "preference", "seeds.fields.output: chosen"),
    "one that looks like a conversation": (
        {"conversations": said("问"), "chosen": {"value": "好"}, "rejected": {"value": "坏"}}, "preference", "chosen"),
    "a prompt without an answer": ({"act": "诗人", "prompt": "写诗"}, "missing_field", "prompt without an answer"),
    "fields of other names": ({"title": "题", "ask": "问"}, "missing_field", "its fields are title, ask"),
    "two that may be the answer": (
        {"question": "问", "answer": "甲", "response": "乙"}, "missing_field", "seeds.fields.output"),
    "tools": ({"conversations": said("问", "答"), "tools": '[{"name": "f"}]'}, "tools", "tools"),
    "a turn of a tool": (
        {"conversations": [*said("问"), {"from": "function_call", "value": "f()"}]}, "tools", "turn 2"),
    "a message that calls a tool": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]}, "tools", "turn 1"),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not_text", "image_url"),
    "pictures beside": ({"instruction": "看图", "output": "猫", "images": ["a.png"]}, "not_text", "images"),
    "an unknown speaker": ({"conversations": [{"from": "律师", "value": "您好"}]}, "speakers", "seeds.speakers"),
    "two requests on end": ({"conversations": [*said("问"), *said("再问", "答")]}, "speakers", "turns 1 and 2"),
    "a reply first": ({"conversations": said("您好", "问", who="gpt human")}, "speakers", "without a request"),
    "nobody replies": ({"conversations": said("问")}, "missing_field", "without a reply"),
    "an empty reply": ({"conversations": said("问", " ")}, "empty_field", "turn 2"),
    "an empty output": ({"instruction": "问", "output": ""}, "empty_field", "output"),
    "numbers": ({"instruction": 3, "output": "答"}, "wrong_type", "instruction"),
    "no object": (["a"], "wrong_type", "list"),
    "a flat history": (
        {"query": "问", "history": ["[客户] 问", "[律师] 答"]}, "missing_field", "seeds.speakers.user: [客户]"),
    "text without turns": ({"text": "一篇文章。"}, "missing_field", "marks of turns"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_seed_is_refused_by_name(name: str) -> None:
    row, reason, words = REFUSED[name]
    (fault,) = pairs(row)
    assert isinstance(fault, Fault) and fault.reason == reason and words in fault.detail


def test_the_pairs_before_a_fault_are_used() -> None:
    (fault,) = pairs({"conversations": [*said("问", "答"), {"from": "观众", "value": "?"}]})
    assert isinstance(fault, Fault)  # a speaker that is not known may be anybody: the conversation is not guessed at
    one, fault = pairs({"conversations": [*said("问", "答"), *said("甲"), *said("乙", "丙")]})
    assert one == SeedPair("问", "答") and isinstance(fault, Fault)


def test_a_reply_that_is_not_to_be_learnt_is_part_of_the_prompt_only() -> None:
    turns = [{**turn, "loss_weight": number != 1} for number, turn in enumerate(said("问", "错", "再问", "对"))]
    fault, pair = pairs({"conversations": turns})
    assert isinstance(fault, Fault) and fault.reason == "not_taught"
    assert pair == SeedPair("再问", "对", history=(("问", "错"),))


def test_only_the_first_pair_of_a_conversation() -> None:
    assert pairs({"conversations": said("问", "答", "再问", "再答")}, Reading(only_first=True)) == [
        SeedPair("问", "答")
    ]


@pytest.mark.parametrize(
    ("row", "fields", "expected"),
    [
        ({"title": "题", "ask": "问", "answer": "答"}, {"instruction": "title"}, SeedPair("题", "答")),
        ({"title": "题", "ask": "问", "reply": "答"}, {"instruction": "title", "input": "ask", "output": "reply"},
            SeedPair("题", "答", "问")),
        ({"instruction": "问", "en": "ask", "output": "答"}, {"instruction": "en"}, SeedPair("ask", "答")),
        ({"data": {"q": "问", "a": "答"}}, {"instruction": "data.q", "output": "data.a"}, SeedPair("问", "答")),
        ({1: "问", 2: "答", 3: "解释"}, {"instruction": 1, "output": 2}, SeedPair("问", "答")),
        ({"prompt": "问", "chosen": "好", "rejected": "坏"}, {"output": "chosen"}, SeedPair("问", "好")),
        ({"conversations": said("问"), "chosen": {"from": "gpt", "value": "好"}, "rejected": {}}, {"output": "chosen"},
            SeedPair("问", "好")),
        ({"prompt": "问", "chosen": said("问", "好", names=("role", "content")), "rejected": []}, {"output": "chosen"},
            SeedPair("问", "好")),
        ({"对话": said("问", "答")}, {"messages": "对话"}, SeedPair("问", "答")),
    ],
)  # fmt: skip
def test_settings_name_the_fields(row: Any, fields: dict[str, Any], expected: SeedPair) -> None:
    assert pairs(row, Reading(SeedFields(**fields))) == [expected]


def test_settings_name_the_speakers_of_a_flat_history() -> None:
    reading = Reading(SeedFields(messages="history"), Speakers(user=("客户",), assistant=("律师",)))
    assert pairs({"query": "问", "history": ["[客户] 问", "[律师] 答"]}, reading) == [SeedPair("问", "答")]


def test_a_field_that_is_not_there_is_named() -> None:
    (fault,) = pairs({"title": "题"}, Reading(SeedFields(instruction="titel")))
    assert isinstance(fault, Fault) and "no field titel: its fields are title" in fault.detail


def test_fields_that_are_not_read_are_told() -> None:
    (one,) = found({"instruction": "问", "output": "答", "en_instruction": "ask", "empty": ""})
    assert one.unread == ("en_instruction",) and one.shape == "pairs (instruction, output)"


def test_what_is_asked_about_stands_below_the_instruction() -> None:
    assert SeedPair("译", "water", "水").request == "译\n\n水" and SeedPair("译", "x").request == "译"
