"""Stage 5, polish: the primary chat rewrites each document into a proper reply to its instruction. `kun run stage5`

Answer polishment is the paper's second novelty: the reply is made from the document, copies it where it can, and adds
nothing. Replies that fail the paper's post-filters, or that the document does not support, are rejected.
"""

from __future__ import annotations

from collections.abc import Sequence

from kun.checks.answers import clean_output, echo, folded, pointing_word, repeats, says_again, unusable
from kun.checks.faithfulness import faithfulness
from kun.config.schema import Config, Polish
from kun.engines.base import Generate, Generated, request_seed
from kun.engines.cache import EngineCache, window
from kun.pipeline.stage import Measure, Output, Stage, StageSpec, Step
from kun.records import Polished, Reject, Scored, extend
from kun.text.cutting import longest_opening
from kun.text.normal import preview
from stages.writing import Writing, writing_stage

# Room for a reply: it is hardly ever longer than one and a half times its text, plus a few sentences.
GROWTH, SPARE = 1.5, 64

ABOUT = """pairs of instruction and output, made from raw text by instruction back-translation with answer polishment
(Kun): a label model wrote the instruction for each text, a primary chat model judged the instruction and polished the
text into its output. No row was written or checked by a person."""

SUMMARY = "let the primary chat polish each text into an output; write final/"
FINAL = Output("final", ("instruction", "output"), ABOUT)
MEASURES = (Measure("faithfulness", "faithfulness of kept replies"),)
POLISH = StageSpec(
    "stage5", "stage5_polish", "inference", Scored, Polished, measures=MEASURES, output=FINAL, summary=SUMMARY
)


def ask(writing: Writing[Polish], record: Scored) -> Generate | Reject:
    tokens = _fitting(writing, record)
    if tokens is None:
        used = len(_tokens(writing, "", record.instruction))
        return Reject("over_window", f"the instruction alone takes {used} of {writing.window} tokens")
    return Generate(tokens, writing.settings.sampling, request_seed(writing.seed, record.id, "polish"))


def accept(writing: Writing[Polish], record: Scored, answer: Generated) -> Polished | Reject:
    output = clean_output(writing.chat.decode(answer.tokens))
    if not answer.finished:
        return Reject("unfinished", preview(output))
    if len(output) < max(writing.settings.min_chars, 1):
        return Reject("too_short", f"{len(output)} characters: {preview(output)}")
    if fault := unusable(output):
        return Reject(*fault)
    if repetition := repeats(output, writing.settings.max_opening_repeats):
        return Reject("repeats", repetition)
    if sentence := says_again(output, record.text):
        return Reject("repeats", f"says again: {preview(sentence)}")
    if folded(output) == folded(record.instruction):
        return Reject("echo", "the instruction")
    if line := echo(output, f"{writing.prompt.system or ''}\n{writing.prompt.user}"):
        return Reject("echo", preview(line))
    if word := pointing_word(output, writing.settings.banned_words):
        return Reject("banned_word", word)
    if reject := writing.gives_away(output):
        return reject
    faith = faithfulness(output, record.text, record.instruction)
    if faith.score < writing.settings.min_faithfulness:
        return Reject("unfaithful", preview(faith.detail))
    return extend(record, Polished, output=output, faithfulness=faith.score)


def stage(
    config: Config, engines: EngineCache, primary_chat: Step, scored: Sequence[Step], evaluations: Step | None = None
) -> Stage:
    """The stage over the selected records, with the primary chat of stage 1."""
    return writing_stage(POLISH, "polish", ask, accept, config, engines, window, primary_chat, scored, evaluations)


def _tokens(writing: Writing[Polish], text: str, instruction: str) -> list[int]:
    return writing.chat.prompt(writing.prompt.messages(text=text, instruction=instruction))


def _fitting(writing: Writing[Polish], record: Scored) -> list[int] | None:
    """The prompt with as many whole sentences of the text as leave room for the reply; None if not even the first
    does."""

    def attempt(text: str) -> list[int] | None:
        tokens = _tokens(writing, text, record.instruction)
        room = min(writing.settings.sampling.max_tokens, int(GROWTH * writing.chat.count(text)) + SPARE)
        return tokens if len(tokens) + room <= writing.window else None

    return longest_opening(record.text, attempt)
