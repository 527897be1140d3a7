"""Raw text → clean passages: normalise, split into sentences, chunk; and the one word analyser, for BM25 and highlighting."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import RecipeError

Span: TypeAlias = tuple[int, int]
"""A stretch of a text in characters: `text[start:end]`."""

TokenSpans: TypeAlias = Callable[[str], Sequence[Span]]
"""An encoder's tokenizer as the chunker sees it: the span of every token, in order, special tokens left out."""

# ---------------------------------------------------------------------------------------------------- normalise

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")  # a form feed ends a page, hence a line
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKS_IN_A_ROW = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff]{64,}"
)


def counted(count: int, noun: str) -> str:
    """How many of what, for people.

    >>> counted(1, "document"), counted(1200, "passage")
    ('1 document', '1,200 passages')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def normalize(text: str) -> str:
    r"""Return `text` in Unicode's NFC with plain line ends, free of what cannot be stored or tokenised.

    Line and page ends become `\n`, other control characters a space, half a surrogate pair U+FFFD. A text that is
    clean already comes back as the same object. Offsets everywhere refer to the normalised text.

    >>> normalize("cafe\u0301\r\nopen\x00 \ud800")
    'café\nopen  �'
    """
    if _UNWANTED.search(text):
        if _SURROGATE.search(text):  # halves that belong together are joined on the way
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = _CONTROL.sub(" ", _LINE_END.sub("\n", text))
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    # Sorting thousands of marks over one letter takes quadratic time and no language has them: their excess is cut off.
    return unicodedata.normalize("NFC", _MARKS_IN_A_ROW.sub(lambda run: run[0][:64], text))


# ---------------------------------------------------------------------------------------------------- sentences

# Each branch, once begun, cannot fail, so that a megabyte of full stops takes linear time.
_CANDIDATE = re.compile(
    r"""
      (?P<wide> [。！？｡।॥؟۔։።፧။។]+ [!?]* [\"'”’」』）)\]》»]* \s* )   # ends a sentence wherever it stands
    | (?P<stop> [.!?…] (?= [\s\"'”’)\]»\[] ) (?: \[\d{1,3}\] | [\"'”’)\]»] )* \s* )
    | (?P<line> \n\s* )
    """,
    re.VERBOSE,
)
_ITEM = re.compile(r"[-*+•‣◦·–—#>|]\s?|\(?(?:\d{1,3}|[a-z])[.)]\s")
_OPENERS = "\"'“‘«„‚([{¿¡"

_ABBREVIATIONS = set(
    """
    adj al approx apr art assn aug ave bd bde bldg blvd bros brig capt cf cmdr col comdr cpl dept dec dr ed eds e.g esp est
    etc feb ft gen gov hon hosp i.e ibid incl insp jan jul jun lt maj mar messrs mlle mme mr mrs ms mt nov oct op pvt prof
    rep rev sen sep sept sgt spp sr ssp st subsp supt univ viz vs var
    bzgl bzw evtl geb ggf inkl mio mrd usw vgl zzt av dra num sra srta uds mlles
    акад гг др им коп млн млрд напр обл проф род руб ср тел тыс ул
    """.split()  # noqa: SIM905 -- readable as prose
)
"""Words whose full stop does not end a sentence, whatever follows: to merge two sentences costs nothing, to cut one does."""

_BEFORE_NUMBERS = set(
    """
    abb art ch chap eq eqs ex fig figs fn kap no nos nr nrs p par para pp pt ref refs sec sect tab v vol vols
    гл рис стр табл п
    """.split()  # noqa: SIM905
)
"""Words whose full stop does not end a sentence where a number follows: "No. 5", but "The answer is no. Then"."""

_WRAPPED_LINE = range(50, 121)
"""Lengths, in characters, of lines that look like the lines of a wrapped paragraph rather than headings or rows."""


def sentences(text: str) -> list[Span]:
    """Split `text` into sentences: spans that lie end to end and cover it, each with the white space that follows it.

    Blank lines, list items and headings also end a sentence; the line ends of a wrapped paragraph do not.

    >>> text = "Dr. Smith et al. gave 3.14 mg. Did it help? 効いた。はい。"
    >>> [text[start:end] for start, end in sentences(text)]
    ['Dr. Smith et al. gave 3.14 mg. ', 'Did it help? ', '効いた。', 'はい。']
    """
    spans: list[Span] = []
    start = line = 0
    while line < len(text) and text[line].isspace():  # white space alone is no sentence
        line += 1
    for found in _CANDIDATE.finditer(text, line):
        end = found.end()
        if end == len(text):
            break
        if found.lastgroup == "wide":
            ends = True
        elif found.lastgroup == "stop":
            ends = _ends_at_stop(text, found.start(), end, line)
        else:
            ends = _ends_at_line(text, found.start(), end, line)
        if ends:
            spans.append((start, end))
            start = end
        newline = text.rfind("\n", found.start(), end)
        if newline >= 0:
            line = newline + 1
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def _ends_at_stop(text: str, stop: int, end: int, line: int) -> bool:
    """Whether the `.`, `!`, `?` or `…` at `stop` ends a sentence; `end` is where the next word begins."""
    if not text[end - 1].isspace():
        return False
    if text.count("\n", stop, end) > 1:
        return True
    following = text[end : end + 4].lstrip(_OPENERS)
    if following[:1].islower():
        return False
    if text[stop] != ".":
        return True
    before = text[max(line, stop - 24) : stop]
    if not before or before[-1].isspace():  # dots that lead to a page number
        return False
    word = before.split()[-1].lstrip(_OPENERS).lower()
    if word in _ABBREVIATIONS or (word in _BEFORE_NUMBERS and _starts_as_number(following)):
        return False
    if all(len(part) == 1 and part.isalpha() for part in word.split(".")):  # "J. K. Rowling", "U.S. Navy", "т. е."
        return False
    return not (word.isdecimal() and len(word) < 4 and before.strip() == word)  # "1. First item"


def _starts_as_number(following: str) -> bool:
    return following[:1].isdigit() or (following[:1].isupper() and following[1:2].isdigit())  # "Fig. 2", "Fig. S2"


def _ends_at_line(text: str, newline: int, end: int, line: int) -> bool:
    """Whether the line that runs from `line` to `newline` ends a sentence; `end` is where the next word begins."""
    if text.count("\n", newline, end) > 1 or _ITEM.match(text, end):
        return True
    return not text[end].islower() and newline - line not in _WRAPPED_LINE


# -------------------------------------------------------------------------------------------------------- chunk

_BLOCK = 1 << 17  # characters that are tokenised at once: bounds the memory that a huge document takes


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents become passages; both numbers are encoder tokens.

    >>> Chunking(size=8, overlap=8)
    Traceback (most recent call last):
    twinrank.errors.RecipeError: the overlap of passages is 8 tokens; give less than their size, 8
    """

    size: int = 256
    """The most tokens a passage has, its title and special tokens included; 0 keeps each document whole."""
    overlap: int = 32
    """The most tokens that a passage repeats from the one before it."""
    also: tuple[str, ...] = ()
    """Texts that give passages of their own: "title", or names of fields such as a summary or the questions it answers."""

    def __post_init__(self) -> None:
        if self.size < 0 or 0 < self.size < 8:
            raise RecipeError(f"the size of passages is {self.size} tokens; give 0 (documents stay whole) or at least 8")
        if self.overlap < 0 or (self.size and self.overlap >= self.size):
            raise RecipeError(f"the overlap of passages is {self.overlap} tokens; give less than their size, {self.size}")


def chunk(text: str, title: str = "", *, token_spans: TokenSpans, size: int, overlap: int = 0) -> list[Span]:
    """Cut `text` into passages of at most `size` encoder tokens, `title` included, that begin and end with sentences.

    Passages come out about equally long: 270 tokens at a size of 256 become twice 135, not 256 and 14, because a scrap
    makes a poor vector. A sentence beyond the size is cut between words, a word beyond it between tokens. Every
    character but white space lies in some passage. A title that would take more than three quarters of the size counts
    as that much; what then does not fit, the encoder reports as truncated.

    A title without text gives one empty passage, (0, 0); neither gives none.

    >>> words = lambda text: [word.span() for word in re.finditer(r"\\w+", text)]
    >>> text = "Zinc is a metal. It is blue. Colds last a week. Nothing helps."
    >>> [text[start:end] for start, end in chunk(text, token_spans=words, size=10)]
    ['Zinc is a metal. It is blue.', 'Colds last a week. Nothing helps.']
    """
    Chunking(size, overlap)
    whole = _trimmed(text, 0, len(text))
    if whole[0] == whole[1]:
        return [(0, 0)] if title.strip() else []
    if size == 0:
        return [whole]
    budget = size - min(len(token_spans(title)) if title else 0, size * 3 // 4)
    if len(text) <= _BLOCK:
        tokens = _Tokens.of([(0, token_spans(text))])
        if len(tokens.ends) <= budget:
            return [whole]
        sentence_ends = [end for _, end in sentences(text)]
    else:
        sentence_ends = [end for _, end in sentences(text)]
        tokens = _Tokens.of((start, token_spans(text[start:end])) for start, end in _blocks(text, sentence_ends))
    ends, counts = _pieces(text, sentence_ends, tokens, budget)
    passages = _pack(text, ends, counts, tokens, budget, min(overlap, budget // 2))
    return [span for span in (_trimmed(text, start, end) for start, end in passages) if span[0] < span[1]]


def _trimmed(text: str, start: int, end: int) -> Span:
    """The span without white space at its ends; an empty one where nothing is left."""
    piece = text[start:end]
    end = start + len(piece.rstrip())
    return max(start, end - len(piece.strip())), end


def _blocks(text: str, sentence_ends: list[int]) -> Iterator[Span]:
    """Stretches of whole sentences, tokenised at once; a sentence beyond a block is cut, at white space if it has any."""
    start = 0
    cuts = np.asarray(sentence_ends)
    while len(text) - start > _BLOCK:
        cut = int(cuts[np.searchsorted(cuts, start + _BLOCK, side="right") - 1])
        if cut <= start:
            cut = max(text.rfind(mark, start + _BLOCK // 2, start + _BLOCK) + 1 for mark in " \n\t") or start + _BLOCK
        yield start, cut
        start = cut
    yield start, len(text)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The spans of a text's tokens, as arrays; neither decreases."""

    starts: npt.NDArray[np.int64]  # (tokens,)
    ends: npt.NDArray[np.int64]  # (tokens,)

    @classmethod
    def of(cls, blocks: Iterable[tuple[int, Sequence[Span]]]) -> _Tokens:
        arrays = [np.array(spans, dtype=np.int64).reshape(-1, 2) + offset for offset, spans in blocks]
        spans = np.maximum.accumulate(np.concatenate(arrays), axis=0)  # (tokens, 2)
        return cls(spans[:, 0], spans[:, 1])

    def before(self, position: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """How many tokens end at or before each character position; a token belongs where its last character lies,
        because SentencePiece's begin with the space before a word."""
        return np.searchsorted(self.ends, np.asarray(position), side="right")


def _pieces(
    text: str, sentence_ends: list[int], tokens: _Tokens, budget: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The smallest stretches that are moved as one: sentences, and the parts of those beyond the budget.

    Returns where each ends, in characters, and how many tokens there are up to there; both (pieces,).
    """
    counts = tokens.before(sentence_ends)
    long = np.flatnonzero(np.diff(counts, prepend=0) > budget)
    ends = np.asarray(sentence_ends, dtype=np.int64)
    if len(long):
        cuts = [
            cut
            for i in long.tolist()
            for cut in _word_cuts(text, tokens, int(counts[i - 1]) if i else 0, int(counts[i]), budget)
        ]
        ends = np.union1d(ends, np.asarray(cuts, dtype=np.int64))
        counts = tokens.before(ends)
    return ends, counts


def _word_cuts(text: str, tokens: _Tokens, first: int, last: int, budget: int) -> Iterator[int]:
    """Where, in characters, to cut a sentence of the tokens `first` up to `last` into about equal parts within the budget:
    at a line's end if one is near, else between words, else between tokens."""
    starts, ends = tokens.starts, tokens.ends
    while last - first > budget:
        parts = -(-(last - first) // budget)
        target, limit = first + -(-(last - first) // parts), first + budget
        newline = text.rfind("\n", int(ends[max(target - budget // 4, first)]), int(starts[limit]))
        tries = [*range(target, limit + 1), *range(target - 1, first, -1)]
        words = (int(starts[i]) for i in tries if _is_between_words(text, int(starts[i])))
        inside = (int(starts[i]) for i in tries if starts[i] >= ends[i - 1] > starts[first])  # some share one character
        cut = newline + 1 or next(words, 0) or next(inside, int(ends[limit]))
        yield cut
        first = max(first + 1, int(tokens.before(cut)))


def _is_between_words(text: str, position: int) -> bool:
    around = text[position - 1 : position + 1]
    return not around.isalnum() or _UNSPACED.search(around) is not None


def _pack(
    text: str, ends: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], tokens: _Tokens, budget: int, overlap: int
) -> Iterator[Span]:
    """Put pieces together into passages of about equal length, of at most `budget` tokens; yields untrimmed spans."""
    total = int(counts[-1])
    paragraphs = np.array([i for i, end in enumerate(ends.tolist()) if _ends_paragraph(text, end)], dtype=np.int64)
    first = 0  # the first piece that no passage has yet
    start = begin = 0  # where the passage starts, in characters and in tokens; before piece `first` if it overlaps
    while first < len(ends) and total - begin > budget:
        high = int(np.searchsorted(counts, begin + budget, side="right")) - 1  # the last piece that fits
        if high < first:
            fresh = int(counts[first - 1]) if first else 0
            if begin < fresh:  # what is repeated leaves no room for a long sentence
                start, begin = int(ends[first - 1]), fresh
                continue
            high = first
        rest = total - begin
        parts = -(-(rest - overlap) // (budget - overlap))
        target = begin + (rest + (parts - 1) * overlap) // parts  # passages alike, where overlaps count twice
        needed = total - (parts - 1) * (budget - overlap) - overlap  # to end before this would take one passage more
        low = min(max(int(np.searchsorted(counts, needed)), first), high)
        last = _nearest(counts, low, high, target)
        near = paragraphs[np.searchsorted(paragraphs, low) : np.searchsorted(paragraphs, high, side="right")]
        if len(near):
            paragraph = int(near[_nearest(counts[near], 0, len(near) - 1, target)])
            last = paragraph if abs(counts[paragraph] - target) <= budget / 8 else last
        yield start, int(ends[last])
        start = _overlap_start(text, ends, counts, tokens, first, last, overlap)
        begin, first = int(tokens.before(start)), last + 1
    if first < len(ends):
        yield start, len(text)


def _nearest(values: npt.NDArray[np.int64], low: int, high: int, target: int) -> int:
    """The index from `low` to `high` of the value nearest to `target`; values ascend."""
    at = min(max(int(np.searchsorted(values, target)), low), high)  # a float target would copy the array
    return at - 1 if at > low and target - values[at - 1] <= values[at] - target else at


def _ends_paragraph(text: str, end: int) -> bool:
    tail = text[max(0, end - 8) : end]
    return tail.count("\n", len(tail.rstrip())) > 1


def _overlap_start(
    text: str, ends: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], tokens: _Tokens, first: int, last: int, overlap: int
) -> int:
    """Where, in characters, the passage after pieces `first` to `last` starts: at most `overlap` tokens before their end."""
    earliest = int(counts[last]) - overlap
    kept = max(int(np.searchsorted(counts, earliest)), first)
    if kept < last or not overlap or (first == last and earliest <= (counts[first - 1] if first else 0)):
        return int(ends[min(kept, last)])
    words = (int(tokens.starts[i]) for i in range(earliest, int(counts[last])))  # the last sentence alone is too long
    return next((word for word in words if word < ends[last] and _is_between_words(text, word)), int(ends[last]))


# ----------------------------------------------------------------------------------------------------- analyser

_UNSPACED_RANGES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"  # Hangul: written with spaces, but particles cling to the words
)
_UNSPACED = re.compile(f"[{_UNSPACED_RANGES}]")

_LANGUAGES = {
    "ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "zh": "chinese", "cs": "czech", "da": "danish",
    "nl": "dutch", "en": "english", "eo": "esperanto", "et": "estonian", "fi": "finnish", "fr": "french", "de": "german",
    "el": "greek", "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian", "ja": "japanese",
    "ko": "korean", "lt": "lithuanian", "ne": "nepali", "no": "norwegian", "fa": "persian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho", "es": "spanish",
    "sv": "swedish", "ta": "tamil", "th": "thai", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
"""ISO 639-1 code → name: Snowball's languages, and those that are cut into pairs of characters."""

_LONGEST_TERM = 64  # characters; more is no word, and equal beginnings are enough to find it again
_CACHED_WORDS = 1 << 20  # then the cache starts anew: a million words of text take some 150 MB


class Analyzer:
    """Text → the terms of BM25: words in lower case, stemmed, without accents and stop words.

    Runs of Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer become overlapping pairs of characters. `language`
    is a name or an ISO 639-1 code; "none" neither stems nor drops stop words. An unknown language is refused with
    RecipeError. Stems are Snowball's; stop words are the Snowball lists that tantivy carries (for English Lucene's 33
    words), in the thirteen languages that have one.

    >>> analyze = Analyzer("en")
    >>> analyze("The café's heated debates: 東京都")
    ['cafe', 'heat', 'debat', '東京', '京都']
    >>> analyze.spans("the debates")
    [('debat', 4, 11)]
    """

    language: str
    fingerprint: str
    """Equal fingerprints give equal terms; an index is built anew when it changes."""

    def __init__(self, language: str = "english", *, stem: bool = True, stop_words: bool = True) -> None:
        self.language = _language_named(language)
        self._stem = _stemmer(self.language) if stem else None
        self._is_stop_word = _stop_word_test(self.language) if stop_words else None
        self._find = _word_pattern(keep_apostrophes=self.language == "english")
        self._terms_of = _TermCache(self._analyze_run)
        steps = [f"stem {_snowball_version()}" if self._stem else "", "stop" if self._is_stop_word else ""]
        self.fingerprint = "/".join(["words-1", self.language, *filter(None, steps)])

    def __call__(self, text: str) -> list[str]:
        terms: list[str] = []
        terms_of = self._terms_of
        for run in self._find.findall(text):
            terms += terms_of[run]
        return terms

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """The same terms, each with its place: (term, start, end) in characters of `text`."""
        found: list[tuple[str, int, int]] = []
        for match in self._find.finditer(text):
            run, start = match[0], match.start()
            terms = self._terms_of[run]
            if _UNSPACED.match(run):
                width = min(2, len(run))
                found += [(term, start + i, start + i + width) for i, term in enumerate(terms)]
            else:
                found += [(term, start, match.end()) for term in terms]
        return found

    def _analyze_run(self, run: str) -> tuple[str, ...]:
        """The terms of one run of letters: none for a stop word, one for a word, several for characters in pairs."""
        if _UNSPACED.match(run):
            return tuple(_folded(run[i : i + 2]) for i in range(max(1, len(run) - 1)))
        word = _folded(run[: 4 * _LONGEST_TERM], turkish=self.language == "turkish")
        if self._is_stop_word is not None and self._is_stop_word(word):
            return ()
        term = _without_accents(self._stem(word) if self._stem is not None else word)[:_LONGEST_TERM]
        return (term,) if term else ()


class _TermCache(dict[str, tuple[str, ...]]):
    """Run of letters → its terms, worked out once for each; long runs, which do not come again, are not kept."""

    def __init__(self, analyze_run: Callable[[str], tuple[str, ...]]) -> None:
        super().__init__()
        self._analyze_run = analyze_run

    def __missing__(self, run: str) -> tuple[str, ...]:
        terms = self._analyze_run(run)
        if len(run) <= _LONGEST_TERM:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[run] = terms
        return terms


def _language_named(language: str) -> str:
    name = language.strip().lower()
    name = _LANGUAGES.get(name, name)
    if name != "none" and name not in _LANGUAGES.values():
        known = ", ".join(f"{name} ({code})" for code, name in _LANGUAGES.items())
        raise RecipeError(
            f"the language {language!r} has no word analyser; known are none (neither stems nor stop words), {known}"
        )
    return name


def _stemmer(language: str) -> Callable[[str], str] | None:
    import Stemmer

    if language not in Stemmer.algorithms():
        return None
    stem: Callable[[str], str] = Stemmer.Stemmer(language, 0).stemWord  # no cache of its own: ours keeps whole results
    return stem


def _snowball_version() -> str:
    import Stemmer

    return str(Stemmer.version())


def _stop_word_test(language: str) -> Callable[[str], bool] | None:
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    try:
        rest = TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.stopword(language)).build().analyze
    except ValueError:  # no list for this language
        return None
    return lambda word: not rest(word)


@cache
def _word_pattern(*, keep_apostrophes: bool) -> re.Pattern[str]:
    """Runs of letters and digits with the marks on them, or runs of characters of scripts without spaces.

    English keeps an apostrophe inside a word, for its stemmer to judge; French and Italian split there (l'amour).
    """
    letter = rf"[^\W_{_UNSPACED_RANGES}]"
    # Python's \w knows no combining marks, without which Hindi falls apart; soft hyphens and joiners stand within words too.
    marks = "".join(chr(c) for c in range(0x300, 0x1E944) if unicodedata.category(chr(c))[0] == "M") + "\u00ad\u200c\u200d"
    marks = _UNSPACED.sub("", marks)
    word = rf"{letter}+(?:[{marks}]+{letter}*)*"
    if keep_apostrophes:
        word = rf"{word}(?:['’]{word})*"
    return re.compile(rf"{word}|[{_UNSPACED_RANGES}]+")


_INVISIBLE = re.compile("[\u00ad\u200c\u200d]")
_ACCENT = re.compile("(?<=[a-z\u0370-\u03ff])[\u0300-\u036f]+")


def _folded(word: str, *, turkish: bool = False) -> str:
    if word.isascii() and not turkish:
        return word.lower()
    if turkish:
        word = word.replace("I", "ı").replace("İ", "i")
    word = unicodedata.normalize("NFKC", word).casefold()  # full-width letters, ligatures of PDF files
    return _INVISIBLE.sub("", word).replace("’", "'")


def _without_accents(word: str) -> str:
    """The word without the accents of Latin and Greek letters, and with е for ё; after stemming, which needs them."""
    if word.isascii():
        return word
    bare = _ACCENT.sub("", unicodedata.normalize("NFD", word.replace("ё", "е")))
    return unicodedata.normalize("NFC", bare)
