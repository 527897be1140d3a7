"""A model's endpoint is asked as OpenAI's clients ask, tried again where that helps, and told of in one sentence where not."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from twinrank.answer import endpoint as module
from twinrank.answer.endpoint import Endpoint
from twinrank.errors import EndpointError, InputError

ASKED = [{"role": "user", "content": "does zinc help?"}]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)


def test_a_question_goes_out_in_the_shape_of_a_chat_completion(model: Any) -> None:
    model.say = lambda messages: f"heard: {messages[-1]['content']}"
    reply = Endpoint(model.url, "small", most_tokens=99).complete(ASKED)
    assert reply.text == "heard: does zinc help?"
    assert not reply.cut
    assert model.asked == [
        {"path": "/v1/chat/completions", "model": "small", "messages": ASKED, "temperature": 0, "max_tokens": 99}
    ]
    assert "Authorization" not in model.seen_headers[0]


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions"])
def test_an_address_may_be_given_as_it_is_found_in_the_wild(model: Any, ending: str) -> None:
    model.say = lambda _: "yes"
    assert Endpoint(model.url + ending, "m").complete(ASKED).text == "yes"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_it_is_asked_again_where_that_may_help(model: Any, status: int) -> None:
    model.statuses, model.say = [status, status], lambda _: "at last"
    assert Endpoint(model.url, "m").complete(ASKED).text == "at last"
    assert len(model.asked) == 3


def test_it_is_given_up_after_so_many_tries(model: Any) -> None:
    model.statuses = [503] * 9
    with pytest.raises(EndpointError, match="status 503: status 503, told by the model's server"):
        Endpoint(model.url, "m", tries=3).complete(ASKED)
    assert len(model.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_cannot_get_better_is_asked_once(model: Any, status: int) -> None:
    model.statuses = [status]
    with pytest.raises(EndpointError, match=f"refused with status {status}"):
        Endpoint(model.url, "m").complete(ASKED)
    assert len(model.asked) == 1


def test_a_pause_that_is_asked_for_is_kept_where_there_is_time(model: Any) -> None:
    model.statuses, model.headers = [429], {"Retry-After": "0"}
    model.say = lambda _: "yes"
    assert Endpoint(model.url, "m").complete(ASKED).text == "yes"
    model.statuses, model.headers = [429], {"Retry-After": "3600"}
    with pytest.raises(EndpointError, match="status 429"):
        Endpoint(model.url, "m", timeout=5).complete(ASKED)


def test_a_model_that_takes_too_long_is_left(model: Any) -> None:
    model.pause = 1.0
    with pytest.raises(EndpointError, match="gave no answer"):
        Endpoint(model.url, "m", timeout=0.2).complete(ASKED)


def test_nobody_at_the_address_is_told_at_once() -> None:
    with pytest.raises(EndpointError, match="is it running"):
        Endpoint("http://127.0.0.1:9/v1", "m").complete(ASKED)


def test_a_redirect_is_not_followed(model: Any) -> None:
    model.statuses, model.headers = [302], {"Location": "http://127.0.0.1:9/elsewhere"}
    with pytest.raises(EndpointError, match="status 302"):
        Endpoint(model.url, "m").complete(ASKED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": ["x", 3]}}]}',
        b"[" * 100_000,
    ],
)
def test_a_reply_that_is_none_is_told(model: Any, body: bytes) -> None:
    model.body = body
    with pytest.raises(EndpointError, match=r"no chat completion|an empty text"):
        Endpoint(model.url, "m").complete(ASKED)


def test_a_reply_without_end_is_not_read(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_REPLY", 100_000)
    model.body = b" " * 1_000_000
    with pytest.raises(EndpointError, match="longer than 100,000 bytes"):
        Endpoint(model.url, "m").complete(ASKED)


def test_content_in_parts_and_a_cut_are_understood(model: Any) -> None:
    model.body = json.dumps(
        {
            "choices": [
                {"message": {"content": [{"type": "text", "text": "zinc "}, {"text": "helps"}]}, "finish_reason": "length"}
            ]
        }
    ).encode()
    assert Endpoint(model.url, "m").complete(ASKED) == ("zinc helps", True)


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-very-secret-42"
    monkeypatch.setenv("TWINRANK_ENDPOINT_KEY", key)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    endpoint = Endpoint(model.url, "m", tries=2)
    model.statuses = [503, 401]
    model.reply = lambda status: json.dumps({"error": {"message": f"bad key {key}"}}).encode()
    with caplog.at_level(logging.DEBUG), pytest.raises(EndpointError) as raised:
        endpoint.complete(ASKED)
    assert model.seen_headers[0]["Authorization"] == f"Bearer {key}"
    assert key not in str(raised.value) + repr(endpoint) + caplog.text + repr(raised.value.__cause__)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8080", "give an address such as"),
        ("ftp://127.0.0.1/v1", "give an address such as"),
        ("file:///etc/passwd", "give an address such as"),
        ("http://user:secret@127.0.0.1/v1", "without a user or a password"),
        ("http://127.0.0.1:99999/v1", "no address"),
        ("http://127.0.0.1:80/a b", "a blank"),
        ("http://127.0.0.1/v1\r\nX: y", "a blank"),
        ("", "give an address"),
    ],
)
def test_what_is_no_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        Endpoint(url, "m")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("inf")}, {"tries": 0}, {"most_tokens": 0}])
def test_limits_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Endpoint("http://127.0.0.1/v1", "m", **options)


def test_a_key_never_leaves_this_machine_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINRANK_ENDPOINT_KEY", "sk")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(InputError, match="unencrypted"):
        Endpoint("http://models.example/v1", "m")
    Endpoint("https://models.example/v1", "m")
    Endpoint("http://127.0.0.1/v1", "m")


def test_offline_only_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINRANK_ENDPOINT_KEY", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for local in ("http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:80/v1"):
        assert Endpoint(local, "m").is_local
    with pytest.raises(EndpointError, match="HF_HUB_OFFLINE is set"):
        Endpoint("https://models.example/v1", "m")


def test_the_environment_may_name_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINRANK_ENDPOINT", raising=False)
    assert Endpoint.of_environment() is None
    monkeypatch.setenv("TWINRANK_ENDPOINT", "http://127.0.0.1/v1")
    monkeypatch.setenv("TWINRANK_ENDPOINT_MODEL", "m")
    assert Endpoint.of_environment() == Endpoint("http://127.0.0.1/v1", "m")
