import json
import pickle
import random
from pathlib import Path

import pytest

from kun.config.schema import Decontaminate
from kun.errors import InputError
from kun.filters.decontamination.ngrams import SHORTEST, build, contaminated, open_index

DATA = Path(__file__).parents[4] / "shared" / "data"
QUESTION = "下列关于光合作用的说法中，正确的是哪一项？请从四个选项中选出唯一正确的答案。"
ENGLISH = "Which of the following statements about photosynthesis in green plants is correct, and why is it so?"
PROSE = "周末我和几个老朋友去了城外的山里，走了大约三个小时才到山顶。天气比预报的好得多。"


@pytest.fixture
def index(tmp_path):
    def make(*rows, **settings):
        path = tmp_path / "eval.jsonl"
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
        folder = tmp_path / f"index{len(list(tmp_path.iterdir()))}"
        build(Decontaminate(files=(str(path),), **settings), folder)
        return folder

    return make


def reasons(folder, *texts):
    return [found and found.reason for found in contaminated(folder, texts)]


def test_a_hit_names_file_row_and_text(index):
    folder = index({"question": PROSE}, {"question": QUESTION})
    [none, found] = contaminated(folder, ["一份干净的文本。" * 9, f"题库：{QUESTION[3:30]}……"])
    assert none is None
    assert found.reason == "contaminated"
    assert found.detail == "eval.jsonl, row 1: 于光合作用的说法中正确的是哪一项请从四个选项中选出"
    assert contaminated(None, [QUESTION]) == [None]


@pytest.mark.parametrize(
    "text",
    [
        "下列關於光合作用的說法中，正確的是哪一項？請從四個選項中選出唯一正確的答案。",
        "下列关于光合作用的说法中,正确的是哪一项?请从四个选项中选出唯一正确的答案.",
        "下列关于光合\u2028作用的说法中　正确的\n\n是哪一项**请从四个选项中**选出唯一正确的答案",
        f"12．{QUESTION}Ａ．１２㎏",
        QUESTION[8:31],
    ],
)
def test_another_spelling_is_the_same_text(index, text):
    assert reasons(index([QUESTION]), text) == ["contaminated"]


def test_full_width_digits_are_digits(index):
    folder = index("２０２４年５月７日上午１０点３０分，小明从家里出发，走向五公里以外的学校。")
    assert reasons(folder, "2024年5月7日上午10点30分,小明从家里出发,走向五公里以外") == ["contaminated"]


def test_near_misses_are_kept(index):
    folder = index([QUESTION])
    bare = "下列关于光合作用的说法中正确的是哪一项请从四个选项中选出唯一正确的答案"
    assert reasons(folder, bare[:19], bare[:20]) == [None, "contaminated"]
    assert reasons(folder, bare[:19] + "换" + bare[20:], bare[:19] + "\n" + bare[20:]) == [None, None]
    assert reasons(folder, bare[:17], bare[17:]) == [None, None]  # side by side in a shard, but two documents


def test_three_latin_letters_weigh_as_one_chinese_character(index):
    folder = index(f"{ENGLISH} https://en.wikipedia.org/wiki/Photosynthesis")
    links = "参见 https://en.wikipedia.org/wiki/Photosynthesis 和其他页面。"
    assert reasons(folder, links, ENGLISH, ENGLISH[:40]) == [None, "contaminated", None]


def test_a_text_shorter_than_an_ngram_counts_as_a_whole_line(index):
    folder = index({"question": "中国的首都是哪座城市？", "answer": "北京市"}, {"title": "长" * (SHORTEST - 1)})
    info = open_index(folder).info
    assert (info.short, info.too_short, info.ngrams) == (1, 1, 1)
    texts = [
        "中國的首都是哪座城市",
        f"{PROSE}\n中国的首都是哪座城市？\n{PROSE}",
        "请问中国的首都是哪座城市？",
        "北京市",
        "长" * 7,
    ]
    assert reasons(folder, *texts) == ["contaminated", "contaminated", None, None, None]


def test_the_wording_of_prompts_is_no_text_of_an_evaluation(index):
    prompt = "以下是中国关于各个学科考试的单项选择题，请选出其中的正确答案。"
    rows = [f"{prompt}{''.join(random.Random(n).sample(PROSE, 30))}" for n in range(30)]
    folder = index(*rows)
    assert open_index(folder).info.templates > 0
    assert reasons(folder, prompt, rows[3][len(prompt) :]) == [None, "contaminated"]
    assert reasons(index(*rows[:20]), prompt) == ["contaminated"]  # too few to tell


def test_the_longest_stretch_is_named(index):
    folder = index([QUESTION], [PROSE])
    [found] = contaminated(folder, [QUESTION[:26] + "。" + PROSE])
    assert found.detail.startswith("eval.jsonl, row 1: 周末我和")


def test_nothing_to_look_for_is_an_error(index):
    with pytest.raises(InputError, match=r"decontaminate\.files: .*eval\.jsonl: no text of 8 Chinese characters"):
        index({"answer": "A"}, {"answer": "B"})


def test_a_folder_that_is_no_index(tmp_path):
    with pytest.raises(InputError, match=f"decontaminate: {tmp_path} is no index"):
        contaminated(tmp_path, ["text"])


def test_rejects_travel_and_the_same_files_give_the_same_index(index):
    first, second = index([QUESTION, PROSE]), index([QUESTION, PROSE])
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    assert pickle.loads(pickle.dumps(contaminated(first, [PROSE])))[0].reason == "contaminated"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"real text is not here: {DATA}")
@pytest.mark.parametrize("name", ["cmrc2018_trial", "drcd_dev_traditional", "csl_title_dev"])
def test_planted_text_is_found_and_real_text_is_clean(tmp_path, name):
    path = DATA / "gold" / f"{name}.jsonl"
    build(Decontaminate(files=(str(path),), fields=("text",)), tmp_path)
    draw = random.Random(7)
    with (DATA / "text/prose_zh.jsonl").open(encoding="utf-8") as file:
        clean = [json.loads(next(file))["text"] for _ in range(2000)]
    planted = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"]
        size = draw.randint(min(60, len(text)), len(text))
        start, host = draw.randint(0, len(text) - size), draw.choice(clean)
        at = draw.randint(0, len(host))
        planted.append(f"{host[:at]}\n{text[start : start + size]}\n{host[at:]}")
    assert reasons(tmp_path, *planted) == ["contaminated"] * len(planted)
    assert reasons(tmp_path, *clean) == [None] * len(clean)
