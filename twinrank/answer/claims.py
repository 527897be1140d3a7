"""What a language model wrote → plain sentences with the passages that each cites; links, images and HTML are taken out."""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from dataclasses import dataclass

from twinrank.answer.unseen import without_unseen
from twinrank.text import normalize, sentences

LONGEST = 20_000
"""Characters of a reply that are looked at."""

MOST_CITATIONS = 50
"""Numbers that one bracket may stand for, as in [1-50]."""

MOST_LAYERS = 8
"""Times that a reply is looked through: one who hides more deeply gets his text without any sign that could mean something."""

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_SILENT = re.compile(
    r"<(think|script|style|iframe|object|svg|template|noscript)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE
)
_IMAGE = re.compile(r"!\[[^\]]{0,2000}\](?:\([^)]*(?:\)|\Z)|\[[^\]]*\])")
_LINKED_CITATION = re.compile(r"\[?\[(\d{1,4})\]\]?\([^)]*(?:\)|\Z)")
_LINK = re.compile(r"\[([^\[\]]{0,2000})\]\([^)]*(?:\)|\Z)")
_REFERENCE = re.compile(r"^[ \t]*\[[^\]\n]{1,200}\]:[ \t]*\S.*$", re.MULTILINE)
_REFERRING = re.compile(
    r"\[(?!(?:passage|source|document|doc)s?\b)([^\[\]]*[^\W\d_][^\[\]]*)\]\[[^\[\]\n]{0,200}\]", re.IGNORECASE
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,4000}>|<![^<>]{0,4000}>|<\?[^<>]{0,4000}>")
_BEGUN_TAG = re.compile(r"<(?=[a-zA-Z/!?])")
_ADDRESS = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]{1,20}://|\b(?:data|javascript|vbscript|mailto|file|tel|sms|blob):(?=\S)"
    r"|(?<![:\w/])//(?=[\w-]+\.)|\bwww\.(?=\w))[^\s<>\"'\[\]]*(?<![.,;:!?)])",
    re.IGNORECASE,
)
REMOVED = "(link removed)"

_NUMBERS = r"\d{1,4}(?:\s*[-–,;]\s*\d{1,4})*"
_WORD = r"(?:(?:passages?|sources?|documents?|docs?)\s*)?"
_CITATION = re.compile(rf"[\[【]\^?\s*{_WORD}#?({_NUMBERS})(?:†[^\]】]*)?\s*[\]】]", re.IGNORECASE)
_BEHIND_A_STOP = re.compile(r"([.!?…。！？]+[\"'”’)]*)[ \t]*((?:\[\d+\][ \t]*)+)")
_LEADING = re.compile(r"^(?:[-*+•]\s+|#{1,6}\s+|>\s?|\d{1,3}[.)]\s+)+")
_EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1")


@dataclass(frozen=True, slots=True)
class Written:
    """A sentence of a reply."""

    text: str
    """Without its citations."""
    citations: tuple[int, ...]
    removed: tuple[int, ...]
    """Numbers that were cited and stand for no passage."""


@dataclass(frozen=True, slots=True)
class Parsed:
    sentences: tuple[Written, ...]
    links: int
    """Links, images and pieces of HTML that were taken out."""


def parse(reply: str, given: Collection[int]) -> Parsed:
    """The sentences of a reply, and which of the passages `given` each cites.

    >>> parsed = parse("Zinc helps. [1] See ![x](http://evil.example/?q=1) [9].", {1, 2})
    >>> [(written.text, written.citations, written.removed) for written in parsed.sentences], parsed.links
    ([('Zinc helps.', (1,), ()), ('See.', (), (9,))], 1)
    """
    text, links = plain(_THOUGHT.sub(" ", reply[:LONGEST]))
    text = _CITATION.sub(lambda found: "".join(f"[{number}]" for number in _numbers(found[1])), text)
    text = _BEHIND_A_STOP.sub(lambda found: f" {found[2].strip()}{found[1]} ", text)
    written: list[Written] = []
    for start, end in sentences(text):
        cited = [int(number) for number in re.findall(r"\[(\d+)\]", text[start:end])]
        words = _without_citations(text[start:end])
        if not re.search(r"\w", words):
            if written and cited:  # a line of citations alone belongs to what stands before it
                before = written.pop()
                written.append(_written(before.text, [*before.citations, *before.removed, *cited], given))
            continue
        written.append(_written(words, cited, given))
    return Parsed(tuple(written), links)


def _written(words: str, cited: list[int], given: Collection[int]) -> Written:
    unique = list(dict.fromkeys(cited))
    known = tuple(number for number in unique if number in given)
    return Written(words, known, tuple(number for number in unique if number not in given))


def _numbers(text: str) -> list[int]:
    """The numbers that "1, 3-5" stands for."""
    numbers: list[int] = []
    for part in re.split(r"[,;]", text):
        ends = [int(number) for number in re.findall(r"\d+", part)]
        numbers += range(ends[0], ends[-1] + 1) if ends[0] <= ends[-1] else ends
    return numbers[:MOST_CITATIONS]


def _without_citations(text: str) -> str:
    words = re.sub(r"\s*\[\d+\]", "", text)
    words = _LEADING.sub("", words.strip())
    words = _EMPHASIS.sub(r"\2", words)
    words = re.sub(r"\(\s*\)", "", words)
    return re.sub(r"\s+([.,;:!?…])", r"\1", " ".join(words.split()))


def plain(text: str) -> tuple[str, int]:
    """The text without what a page would fetch, run, open or hide, and how many such things there were.

    >>> plain('Read [the manual](https://a.example/x) <b>now</b>, or www.b.example/y.')
    ('Read the manual now, or (link removed).', 4)
    """
    text = without_unseen(normalize(text))
    removed = 0
    for _ in range(MOST_LAYERS):  # what was written in entities, or put together from pieces, comes to light on the way
        shown, count = _once(html.unescape(text))
        removed += count
        if shown == text:
            return text, removed
        text = shown
    return re.sub(r"[<>&]|\]\(|//|!\[", " ", text), removed + 1


def _once(text: str) -> tuple[str, int]:
    removed = 0
    for pattern, instead in (
        (_COMMENT, " "),
        (_SILENT, " "),
        (_IMAGE, " "),
        (_REFERENCE, " "),
        (_LINKED_CITATION, r"[\1]"),
        (_LINK, r"\1"),
        (_REFERRING, r"\1"),
        (_TAG, ""),
        (_BEGUN_TAG, "‹"),
        (_ADDRESS, REMOVED),
    ):
        text, count = pattern.subn(instead, text)
        removed += count
    return text, removed
