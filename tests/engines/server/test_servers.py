"""Pauses and what servers say; how several of them work together is in test_server_engine.py."""

from __future__ import annotations

import email.utils
import time

import httpx2
import pytest

from kun.engines.server.servers import _key, _message, _retry_after, pause
from kun.errors import ConfigError


def test_pauses_double_up_to_a_minute() -> None:
    for tries, longest in enumerate([1, 2, 4, 8, 16, 32, 60, 60], 1):
        assert longest * 0.75 <= pause(tries) <= longest


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("99999", 600.0),
        ("inf", 600.0),
        ("0", None),
        ("-3", None),
        ("nan", None),
        ("soon", None),
    ],
)
def test_a_server_says_for_how_long_to_wait(value: str, seconds: float | None) -> None:
    assert _retry_after(httpx2.Headers({"Retry-After": value}), longest=600.0) == seconds


def test_a_server_says_until_when_to_wait() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert _retry_after(httpx2.Headers({"Retry-After": date}), longest=600.0) == pytest.approx(30, abs=2)
    assert _retry_after(httpx2.Headers(), longest=600.0) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "Token id 9 is out of vocabulary", "code": 400}}', "Token id 9 is out of vocabulary"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"[1]", "[1]"),
        ("服务器忙".encode(), "服务器忙"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", ""),
    ],
)
def test_the_words_of_an_error(body: bytes, said: str) -> None:
    assert _message(body) == said


def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUN_API_KEY", "geheim\nzeile")
    with pytest.raises(ConfigError, match="KUN_API_KEY") as caught:
        _key()
    assert "geheim" not in str(caught.value)
