"""Stage 5, polish: the primary chat rewrites each document into a proper reply to its instruction. `kun run stage5`

Answer polishment is Kun's second novelty: the document is the known material, the reply copies it where it can and adds
nothing. Replies that fail the paper's post-filters, or that the source does not bear out, are rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kun.checks.answers import clean_output, echo, folded, pointing_word, repeats, says_again, unusable
from kun.checks.faithfulness import faithfulness
from kun.config.schema import Config, Polish, Privacy
from kun.engines.base import Generate, Generated, request_seed
from kun.engines.cache import EngineCache, window
from kun.filters.decontamination.ngrams import contaminated
from kun.filters.privacy.rules import personal
from kun.models.chat import Chat, load_chat
from kun.pipeline.stage import Infer, Stage, Step, flatten_settings
from kun.prompts import Prompt, load_prompts
from kun.records import Polished, Reject, Scored, extend
from kun.text.normal import preview, split_sentences

# Room for a reply: a rewritten text is hardly over one and a half times as long as its material, plus a few sentences.
GROWTH, SPARE = 1.5, 64


@dataclass(frozen=True)
class Polishing:
    """Both halves of the stage. `window`: longest prompt plus reply, in tokens; `seed`: that of the run; `evaluations`:
    the index of evaluation files, where there is one; `privacy`: of the subset, as in the filter."""

    prompt: Prompt
    settings: Polish
    chat: Chat
    window: int
    seed: int
    evaluations: Path | None = None
    privacy: Privacy = field(default_factory=Privacy)

    def ask(self, record: Scored) -> Generate | Reject:
        tokens = self._fitting(record)
        if tokens is None:
            used = len(self._tokens("", record.instruction))
            return Reject("over_window", f"the instruction alone takes {used} of {self.window} tokens")
        return Generate(tokens, self.settings.sampling, request_seed(self.seed, record.id, "polish"))

    def accept(self, record: Scored, answer: Generated) -> Polished | Reject:
        output = clean_output(self.chat.decode(answer.tokens))
        if not answer.finished:
            return Reject("unfinished", preview(output))
        if len(output) < max(self.settings.min_chars, 1):
            return Reject("too_short", f"{len(output)} characters: {preview(output)}")
        if found := unusable(output):
            return Reject(*found)
        if how := repeats(output, self.settings.max_opening_repeats):
            return Reject("repeats", how)
        if sentence := says_again(output, record.text):
            return Reject("repeats", f"says again: {preview(sentence)}")
        if folded(output) == folded(record.instruction):
            return Reject("echo", "the instruction")
        if line := echo(output, f"{self.prompt.system or ''}\n{self.prompt.user}"):
            return Reject("echo", preview(line))
        if word := pointing_word(output, self.settings.banned_words):
            return Reject("banned_word", word)
        if reject := contaminated(self.evaluations, [output])[0] or personal(output, self.privacy):
            return reject
        faith = faithfulness(output, record.text, record.instruction)
        if faith.score < self.settings.min_faithfulness:
            return Reject("unfaithful", preview(faith.detail))
        return extend(record, Polished, output=output, faithfulness=faith.score)

    def _tokens(self, text: str, instruction: str) -> list[int]:
        return self.chat.prompt(self.prompt.messages(text=text, instruction=instruction))

    def _fitting(self, record: Scored) -> list[int] | None:
        """The prompt with as many whole sentences of the material as fit, by halving; None: not even the first does."""
        fitted, tokens = self._fit(record.text, record.instruction)
        if fitted:
            return tokens
        ends = [0]
        for sentence in split_sentences(record.text):
            ends.append(ends[-1] + len(sentence))
        fits, too_many, best = 0, len(ends) - 1, None
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fitted, tokens = self._fit(record.text[: ends[middle]].rstrip(), record.instruction)
            if fitted:
                fits, best = middle, tokens
            else:
                too_many = middle
        return best

    def _fit(self, text: str, instruction: str) -> tuple[bool, list[int]]:
        """Whether the prompt leaves room for the reply, and the prompt."""
        tokens = self._tokens(text, instruction)
        room = min(self.settings.sampling.max_tokens, int(GROWTH * self.chat.count(text)) + SPARE)
        return len(tokens) + room <= self.window, tokens


def stage(
    config: Config, engines: EngineCache, primary_chat: Step, scored: Sequence[Step], evaluations: Step | None = None
) -> Stage:
    """The stage over the selected records, by the primary chat that stage 1 made. `evaluations` is the step with the
    index of evaluation files, where some are named."""
    prompt = cache(lambda: load_prompts(config.prompts).polish)  # not here: a run that was received may lack the folder
    settings = {**flatten_settings("polish", config.polish), "seed": config.seed}
    needs = (primary_chat,) if evaluations is None else (primary_chat, evaluations)
    return Stage(
        "stage5",
        "stage5_polish",
        Infer(
            reads=Scored,
            writes=Polished,
            engine=lambda folders: engines.open(folders(primary_chat)),
            asker=lambda step, folders, engine: Polishing(
                prompt(),
                config.polish,
                load_chat(folders(primary_chat), config.trust_remote_code),
                engine.window,
                config.seed,
                None if evaluations is None else folders(evaluations),
                config.of_subset(step.part).filter.privacy,
            ),
        ),
        tuple(
            Step(
                "stage5_polish",
                step.part,
                lambda: {**settings, "prompts.polish": prompt().digest, "window": window(config)},
                (step, *needs),
            )
            for step in scored
        ),
    )
