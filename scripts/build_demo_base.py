"""Trains the tiny base model of the demo from scratch; about half an hour on two free CPU cores.

    python -m scripts.build_demo_base --out kun/demo/base

There are two phases. In the first, nearly all rows are random units that repeat, which only copying predicts. Without
it, a model of this size reads millions of tokens of documents and still cannot carry a name over from its context;
without the few documents in between, the first real text would wipe copying out again. The second phase reads plain
text of many worlds (`plain_text`), drawn from random streams that no `write_world` uses. None of it is a chat: the
base sees pages and clean texts side by side, and questions before and after the texts that answer them, as forums and
digests have them. Stage 1 teaches it to chat.

A killed run continues from its last state in `--work`; the model is published to `--out` at every save.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kun.demo.documents import Item, new_item, page
from kun.demo.instructions import SPOILED_KINDS, spoiled
from kun.demo.names import NAME_CHARS
from kun.demo.tokens import SPECIALS, build_tokenizer, number_tokens

Batch = list[list[int]]


@dataclass(frozen=True)
class Phase:
    """One part of the training: rows per step of each kind and their lengths; the learning rate falls from `lr` to
    `end_lr`."""

    name: str
    steps: int
    lr: float
    end_lr: float
    copying_rows: int
    copying_length: int
    longest_unit: int
    document_rows: int
    document_length: int = 320


PHASES = (
    Phase("copying", 800, 3e-3, 1.5e-3, copying_rows=24, copying_length=72, longest_unit=12, document_rows=2),
    Phase("reading", 3000, 1.5e-3, 1e-4, copying_rows=8, copying_length=64, longest_unit=12, document_rows=12),
)
FILLERS = "，。！：的是在年由牌县《》\n"
WARMUP_STEPS = 50
SAVE_EVERY = 100
QUESTION_MARKS = ("问题：", "提问：", "问：", "对应的问题：", "")
ANSWER_MARKS = ("回答：", "答：", "整理：", "")


@dataclass(frozen=True)
class Alphabet:
    """The token ids that make up copying rows: names, common words between them, numbers."""

    names: list[int]
    fillers: list[int]
    numbers: list[int]


def copying_rows(rng: random.Random, alphabet: Alphabet, phase: Phase) -> Batch:
    """Rows of random units that repeat in random order: only copying predicts them.

    Half of the rows hold numbers, each behind its own key; a quarter, units of any characters; a quarter, units of few
    different characters, where the last two or three determine the next. Fillers stand around the units.
    """
    batch = []
    for number in range(phase.copying_rows):
        if number % 2 == 0:
            keys = alphabet.fillers + alphabet.names
            units = [
                rng.choices(keys, k=rng.randint(2, 4)) + rng.choices(alphabet.numbers, k=rng.randint(1, 2))
                for _ in range(rng.randint(2, 6))
            ]
        else:
            letters = alphabet.names if number % 4 == 1 else rng.sample(alphabet.names, rng.randint(8, 30))
            units = [rng.choices(letters, k=rng.randint(3, phase.longest_unit)) for _ in range(rng.randint(1, 4))]
        row: list[int] = []
        while len(row) < phase.copying_length:
            row += rng.choice(units)
            if rng.random() < 0.6:
                row += rng.choices(alphabet.fillers, k=rng.randint(1, 3))
        batch.append(row[: phase.copying_length])
    return batch


def _page(item: Item, rng: random.Random) -> str:
    return page(item, rng, control=rng.random() < 0.1)


def _question_and_answer(item: Item, rng: random.Random) -> str:
    return f"{rng.choice(QUESTION_MARKS)}{item.instruction}\n{rng.choice(ANSWER_MARKS)}{item.reply}"


def _text_and_question(item: Item, rng: random.Random) -> str:
    text = item.reply if rng.random() < 0.35 else _page(item, rng)
    gap = rng.choice(("\n", "\n\n"))
    return f"{text}{gap}{rng.choice(QUESTION_MARKS)}{item.instruction}"


def _digest(item: Item, rng: random.Random) -> str:
    question = rng.choice(QUESTION_MARKS) + (item.instruction if rng.random() < 0.7 else item.loose_instruction)
    text = _page(item, rng)
    parts = rng.choice(((text, question), (question, text), (text,)))
    return "\n\n".join((*parts, rng.choice(ANSWER_MARKS) + item.reply))


def _questions(item: Item, rng: random.Random) -> str:
    lines = [item.instruction]
    for _ in range(rng.randint(1, 3)):
        other = new_item(rng)
        lines.append(other.instruction if rng.random() < 0.6 else spoiled(other, rng.choice(SPOILED_KINDS), rng))
    return "\n".join(lines)


FORMS = ((_page, 4), (_question_and_answer, 8), (_text_and_question, 28), (_digest, 56), (_questions, 4))


def plain_text(rng: random.Random) -> str:
    """One text of 30 to 450 characters about one new subject."""
    (form,) = rng.choices([form for form, _ in FORMS], [weight for _, weight in FORMS])
    return form(new_item(rng), rng)


def packed_documents(rng: random.Random, encode: Callable[[str], list[int]], phase: Phase) -> Batch:
    """Rows of plain texts, each between the two ChatML tokens; the last text of a row is cut."""
    start, end = SPECIALS.index("<|im_start|>"), SPECIALS.index("<|im_end|>")
    batch = []
    for _ in range(phase.document_rows):
        row: list[int] = []
        while len(row) < phase.document_length:
            row += [start, *encode(plain_text(rng)), end]
        batch.append(row[: phase.document_length])
    return batch


def new_model(vocabulary_size: int) -> Any:
    """A Llama of 4 layers, width 128: about 1.6 M parameters with its tied embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attention_bias=True,
        initializer_range=0.05,
        pad_token_id=SPECIALS.index("<pad>"),
        bos_token_id=SPECIALS.index("<s>"),
        eos_token_id=SPECIALS.index("<|im_end|>"),
    )
    model = LlamaForCausalLM(config)
    _look_back(model.model.layers[0].self_attn, head=0, offset=1)
    _look_back(model.model.layers[0].self_attn, head=1, offset=2)
    return model


def _look_back(attention: Any, head: int, offset: int) -> None:
    """Set the biases of a head so that it starts by attending `offset` tokens back.

    Copying needs such a head first, and training would spend most of its time finding it. The rotary score of two
    constant vectors is a sum of cosines of their distance; the phase of the query moves its peak.
    """
    import torch

    size, strength, pairs = attention.head_dim, 6.0, 4
    angles = offset * 10000.0 ** (-2.0 * torch.arange(pairs) / size)
    first = head * size
    with torch.no_grad():
        attention.k_proj.bias[first : first + pairs] = strength
        attention.q_proj.bias[first : first + pairs] = strength * torch.cos(angles)
        attention.q_proj.bias[first + size // 2 : first + size // 2 + pairs] = -strength * torch.sin(angles)


def learning_rate(phase: Phase, step: int, first: bool) -> float:
    """Cosine from `lr` to `end_lr`; the first phase starts with a warm-up."""
    rate = phase.end_lr + (phase.lr - phase.end_lr) * (1 + math.cos(math.pi * step / phase.steps)) / 2
    return rate * min(1.0, (step + 1) / WARMUP_STEPS) if first else rate


def sampled_loss(model: Any, rows: Batch, rng: random.Random) -> Any:
    """Next-token loss over the tokens of the batch and 200 random ones: a third of the time of the full softmax."""
    import torch

    batch = torch.tensor(rows)
    vocabulary_size = model.config.vocab_size
    others = rng.sample(range(vocabulary_size), 200)
    candidates = torch.tensor(sorted({*others, *(token for row in rows for token in row)}))
    place = torch.zeros(vocabulary_size, dtype=torch.long)
    place[candidates] = torch.arange(len(candidates))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=batch[:, :-1]).last_hidden_state
        logits = hidden @ model.get_input_embeddings().weight[candidates].T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), place[batch[:, 1:]].flatten())


def publish(model: Any, tokenizer: Any, out: Path, history: list[dict[str, Any]]) -> None:
    """Write the model in bf16, its tokenizer and the training history."""
    import copy

    import torch

    half = copy.deepcopy(model).to(torch.bfloat16)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)
    report = {"phases": [asdict(phase) for phase in PHASES], "history": history}
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def train(out: Path, work: Path, seed: int, only: str | None = None) -> None:
    """Run every phase, or stop after the phase `only`; resume from `work/state.pt` if it exists."""
    import torch

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = new_model(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    ids_of = tokenizer.convert_tokens_to_ids
    alphabet = Alphabet(ids_of([*NAME_CHARS]), ids_of([*FILLERS]), ids_of([*"0123456789", *number_tokens()]))
    history: list[dict[str, Any]] = []
    position = (0, 0)
    state_file = work / "state.pt"
    work.mkdir(parents=True, exist_ok=True)
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        position, history = tuple(state["position"]), state["history"]

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def save(phase_number: int, done: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"position": [phase_number, done], "history": history}
        torch.save(state, work / "state.tmp")
        (work / "state.tmp").replace(state_file)
        publish(model, tokenizer, out, history)

    model.train()
    began = time.monotonic()
    recent: tuple[list[float], list[float]] = ([], [])
    for number, phase in enumerate(PHASES):
        for step in range(position[1] if number == position[0] else 0, phase.steps if number >= position[0] else 0):
            rng = random.Random(f"base {seed} {phase.name} {step}")
            batches = (copying_rows(rng, alphabet, phase), packed_documents(rng, encode, phase))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(phase, step, first=number == 0)
            tokens = [len(rows) * len(rows[0]) for rows in batches]
            for rows, share, losses in zip(batches, tokens, recent, strict=True):
                loss = sampled_loss(model, rows, rng)
                (loss * share / sum(tokens)).backward()
                losses.append(loss.item())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if len(recent[0]) == 50:
                copying, reading = (round(sum(losses) / len(losses), 4) for losses in recent)
                note = {"phase": phase.name, "step": step + 1, "copying_loss": copying, "document_loss": reading}
                history.append(note)
                print(json.dumps(note), f"{time.monotonic() - began:.0f}s", flush=True)
                recent = ([], [])
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == phase.steps:
                save(number, step + 1)
        if phase.name == only:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the tiny base model of the demo.")
    parser.add_argument("--out", type=Path, default=Path("kun/demo/base"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/kun_base"), help="where a killed run resumes")
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--until", choices=[phase.name for phase in PHASES], help="stop after this phase")
    arguments = parser.parse_args()
    train(arguments.out, arguments.work, arguments.seed, arguments.until)


if __name__ == "__main__":
    main()
