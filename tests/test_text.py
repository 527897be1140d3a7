"""Normalising, sentences, passages and terms: by hand on telling texts, and by property on any text."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
import unicodedata
from pathlib import Path

import ir_measures
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.errors import RecipeError
from twinrank.text import Analyzer, Chunking, Span, chunk, normalize, sentences

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine does not decide

ANY_TEXT = st.text(st.characters(), max_size=300)  # surrogates and control characters included
PROSE = st.lists(
    st.sampled_from(
        ["word", "Zinc", "3.14", "Dr.", "end.", "Why?", "漢字。", "हिन्दी।", "\n", "\n\n", "- item", "x" * 40, "§", ""]
    ),
    max_size=80,
).map(" ".join)


def word_spans(text: str) -> list[Span]:
    """A tokenizer that can be followed by hand: a token is up to four letters, or one other character."""
    return [token.span() for token in re.finditer(r"\w{1,4}|[^\w\s]", text)]


def plain_words(text: str) -> list[Span]:
    return [token.span() for token in re.finditer(r"\S+", text)]


def texts_of(text: str, spans: list[Span]) -> list[str]:
    return [text[start:end] for start, end in spans]


class TestNormalize:
    @pytest.mark.parametrize("clean", ["", "plain", "Ünïcödé: 東京 😀\n\tindented", "a\n\nb"])
    def test_a_clean_text_comes_back_as_the_same_object(self, clean: str) -> None:
        assert normalize(clean) is clean

    def test_line_and_page_ends_become_newlines(self) -> None:
        assert normalize("a\r\nb\rc\x0cd\x0be\x85f\u2028g\u2029h") == "a\nb\nc\nd\ne\nf\ng\nh"

    def test_nul_and_control_characters_become_spaces_so_that_words_stay_apart(self) -> None:
        assert normalize("zinc\x00cold\x07\x7f\tend") == "zinc cold  \tend"

    def test_half_a_surrogate_pair_is_replaced_and_two_halves_are_joined(self) -> None:
        assert normalize("a\ud800b \udcffc") == "a�b �c"
        assert normalize("\ud83d" + "\ude00") == "😀"

    def test_letters_and_accents_are_composed(self) -> None:
        assert normalize("cafe\u0301") == "café"

    @patient
    @given(ANY_TEXT)
    def test_what_comes_out_can_be_stored_and_stays_as_it_is(self, text: str) -> None:
        clean = normalize(text)
        clean.encode("utf-8")
        assert unicodedata.is_normalized("NFC", clean)
        assert normalize(clean) is clean
        assert not [c for c in clean if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]

    @pytest.mark.parametrize("unit", ["word é ", "\x00a", "\r\n", "\ud800a", "\u0301\u0316"])
    def test_ten_megabytes_take_seconds(self, unit: str) -> None:
        started = time.perf_counter()
        normalize("e" + unit * (10_000_000 // len(unit)))
        assert time.perf_counter() - started < 10


class TestSentences:
    @patient
    @given(st.one_of(ANY_TEXT, PROSE))
    def test_sentences_lie_end_to_end_and_cover_the_text(self, text: str) -> None:
        assert "".join(texts_of(text, sentences(text))) == text
        assert all(start < end for start, end in sentences(text))

    @patient
    @given(PROSE)
    def test_white_space_alone_is_no_sentence(self, text: str) -> None:
        assert all(part.strip() for part in texts_of(text, sentences(text))) or not text.strip()

    @pytest.mark.parametrize(
        "one_sentence",
        [
            "Dr. Smith et al. met Prof. J. K. Rowling in St. Petersburg.",
            "It weighs 3.14 kg, i.e. more than e.g. a cat, cf. Fig. 2 and No. 5 on p. 12.",
            "The U.S. Navy left at 5 p.m. yesterday.",
            "А. С. Пушкин родился в 1799 г. в Москве, на ул. Немецкой.",
            "Das gilt z. B. für bzw. Wasser, vgl. Abb. 3.",
            "Wait... what? you said",
            "a line of a paragraph that somebody wrapped by hand at some width\nGoing on with a capital letter.",
            "short line\nthat goes on in small letters",
        ],
    )
    def test_these_are_not_cut(self, one_sentence: str) -> None:
        assert texts_of(one_sentence, sentences(one_sentence)) == [one_sentence]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                'He left. "Why?" she asked. (No idea.) Then…  Silence!',
                ["He left. ", '"Why?" she asked. ', "(No idea.) ", "Then…  ", "Silence!"],
            ),
            ("It was in 1990. The answer is no. Then", ["It was in 1990. ", "The answer is no. ", "Then"]),
            ("As found.[12] Then more.", ["As found.[12] ", "Then more."]),
            ("今日は。明日も？「そう！」はい", ["今日は。", "明日も？", "「そう！」", "はい"]),
            ("यह एक है। यह दो है।", ["यह एक है। ", "यह दो है।"]),
            ("كيف حالك؟ أنا بخير.", ["كيف حالك؟ ", "أنا بخير."]),
            ("Кто он? Он здесь. Вот.", ["Кто он? ", "Он здесь. ", "Вот."]),
            ("A Heading\n\nthe text", ["A Heading\n\n", "the text"]),
            ("Needed:\n- zinc\n- water\n1. Stir\n2. Drink", ["Needed:\n", "- zinc\n", "- water\n", "1. Stir\n", "2. Drink"]),
            ("Contents . . . . . . 12\nIndex", ["Contents . . . . . . 12\n", "Index"]),
        ],
    )
    def test_these_are_cut(self, text: str, expected: list[str]) -> None:
        assert texts_of(text, sentences(text)) == expected

    @pytest.mark.parametrize("unit", [".", "! ", ".'", "\n", " ", "[1", "U.", "a. B"])
    def test_no_text_takes_quadratic_time(self, unit: str) -> None:
        started = time.perf_counter()
        sentences(unit * (1_000_000 // len(unit)) + "x")
        assert time.perf_counter() - started < 5


class TestChunk:
    @patient
    @given(PROSE, st.integers(8, 60), st.integers(0, 20), st.sampled_from(["", "Title", "A very long title " * 9]))
    def test_no_text_is_lost_and_no_passage_is_too_long(self, text: str, size: int, overlap: int, title: str) -> None:
        spans = chunk(text, title, token_spans=word_spans, size=size, overlap=min(overlap, size - 1))
        covered = {i for start, end in spans for i in range(start, end)}
        assert covered >= {i for i, character in enumerate(text) if not character.isspace()}
        budget = size - min(len(word_spans(title)), size * 3 // 4)
        for start, end in spans:
            assert len(word_spans(text[start:end])) <= budget
            assert text[start:end] == text[start:end].strip()

    @patient
    @given(PROSE, st.integers(8, 60), st.integers(0, 20))
    def test_passages_move_forward_and_overlap_by_no_more_than_asked(self, text: str, size: int, overlap: int) -> None:
        overlap = min(overlap, size // 2)
        spans = chunk(text, "", token_spans=word_spans, size=size, overlap=overlap)
        for (start, end), (next_start, next_end) in itertools.pairwise(spans):
            assert start < next_start
            assert end < next_end
            assert len(word_spans(text[next_start:end])) <= overlap

    @patient
    @given(ANY_TEXT, st.integers(8, 30))
    def test_any_text_at_all_is_cut_without_loss(self, text: str, size: int) -> None:
        spans = chunk(text, "", token_spans=plain_words, size=size)
        covered = {i for start, end in spans for i in range(start, end)}
        assert covered >= {i for i, character in enumerate(text) if not character.isspace()}

    def test_a_document_that_fits_is_one_passage(self) -> None:
        assert chunk("  Zinc helps. A bit.\n", "", token_spans=plain_words, size=8) == [(2, 20)]

    def test_a_little_too_much_is_cut_in_the_middle(self) -> None:
        text = " ".join(f"Sentence number {i} stands here." for i in range(54))  # 270 words
        lengths = [len(part.split()) for part in texts_of(text, chunk(text, "", token_spans=plain_words, size=256))]
        assert lengths == [135, 135]

    def test_passages_end_with_sentences_and_repeat_whole_ones(self) -> None:
        text = " ".join(f"This is sentence {i}." for i in range(10))
        parts = texts_of(text, chunk(text, "", token_spans=plain_words, size=16, overlap=5))
        assert all(part.startswith("This") and part.endswith(".") for part in parts)
        assert all(former.split(". ")[-1] == latter.split(". ")[0] + "." for former, latter in itertools.pairwise(parts))

    def test_a_cut_near_the_end_of_a_paragraph_moves_there(self) -> None:
        sentence = "One two three four. "
        text = sentence * 6 + "\n\n" + sentence * 5
        assert chunk(text, "", token_spans=plain_words, size=40)[1][0] == text.index("\n\n") + 2

    def test_a_sentence_beyond_the_size_is_cut_between_words(self) -> None:
        text = "alpha " * 100
        parts = texts_of(text, chunk(text, "", token_spans=word_spans, size=30))
        assert [len(part.split()) for part in parts] == [15, 15, 14, 14, 14, 14, 14]
        assert all(word == "alpha" for part in parts for word in part.split())

    def test_a_word_beyond_the_size_is_cut_between_tokens(self) -> None:
        assert [end - start for start, end in chunk("x" * 100, "", token_spans=word_spans, size=10)] == [36, 32, 32]

    def test_chinese_without_spaces_is_cut_between_characters(self) -> None:
        text = "漢" * 50
        assert [
            len(part)
            for part in texts_of(text, chunk(text, "", token_spans=lambda t: [(i, i + 1) for i in range(len(t))], size=20))
        ] == [17, 17, 16]

    def test_the_title_takes_its_part_of_the_size(self) -> None:
        text = "One two three four. " * 4  # 16 words
        assert len(chunk(text, "", token_spans=plain_words, size=16)) == 1
        assert len(chunk(text, "A title", token_spans=plain_words, size=16)) == 2

    def test_a_title_as_long_as_the_size_leaves_a_quarter_for_the_text(self) -> None:
        spans = chunk("one two three four five six seven eight", "t " * 50, token_spans=plain_words, size=16)
        assert len(spans) == 2

    def test_a_size_of_zero_keeps_the_document_whole(self) -> None:
        text = "One two three. " * 1000
        assert chunk(text, "T", token_spans=plain_words, size=0) == [(0, len(text) - 1)]

    @pytest.mark.parametrize("empty", ["", " \n\t "])
    def test_a_title_alone_is_one_empty_passage_and_nothing_is_none(self, empty: str) -> None:
        assert chunk(empty, "Title", token_spans=plain_words, size=16) == [(0, 0)]
        assert chunk(empty, " ", token_spans=plain_words, size=16) == []

    def test_a_text_of_which_the_tokenizer_sees_nothing_is_one_passage(self) -> None:
        assert chunk("§§ ¶¶", "", token_spans=lambda text: [], size=16) == [(0, 5)]

    def test_tokens_that_share_one_character_do_not_stop_the_chunker(self) -> None:
        shared = lambda text: [(i, i + 1) for i in range(len(text)) for _ in range(9)]  # noqa: E731 -- bytes of an emoji
        assert chunk("😀😀😀", "", token_spans=shared, size=8) == [(0, 1), (1, 2), (2, 3)]

    @pytest.mark.parametrize(
        ("unit", "megabytes"),
        [("A plain sentence of several words. ", 10), ("word ", 10), ("! ", 2), ("abc\n", 2), ("漢", 10), (".", 10)],
    )
    def test_megabytes_take_seconds(self, unit: str, megabytes: int) -> None:
        text = unit * (megabytes * 1_000_000 // len(unit.encode()))
        fixed = re.compile(r"\S{1,8}")
        started = time.perf_counter()
        spans = chunk(text, "", token_spans=lambda t: [m.span() for m in fixed.finditer(t)], size=256, overlap=32)
        assert time.perf_counter() - started < 30
        assert spans[-1][1] == len(text.rstrip())

    def test_a_huge_document_is_tokenised_in_blocks(self) -> None:
        longest = 0

        def token_spans(text: str) -> list[Span]:
            nonlocal longest
            longest = max(longest, len(text))
            return plain_words(text)

        text = "One two three four. " * 50_000
        spans = chunk(text, "", token_spans=token_spans, size=100)
        assert longest < 200_000
        assert all(part.endswith("four.") and part.startswith("One") for part in texts_of(text, spans))
        assert len(spans) == 2000

    @pytest.mark.parametrize(("size", "overlap"), [(-1, 0), (4, 0), (16, 16), (16, -1)])
    def test_settings_that_make_no_sense_are_refused(self, size: int, overlap: int) -> None:
        with pytest.raises(RecipeError, match="passages"):
            Chunking(size, overlap)
        with pytest.raises(RecipeError, match="passages"):
            chunk("text", "", token_spans=plain_words, size=size, overlap=overlap)


class TestAnalyzer:
    @pytest.mark.parametrize(
        ("language", "text", "terms"),
        [
            ("english", "The Debates' heat: debating isn't merging lists", ["debat", "heat", "debat", "isn't", "merg", "list"]),
            (
                "english",
                "John's café, naïve COVID-19 3.14 merge_lists __init__",
                ["john", "cafe", "naiv", "covid", "19", "3", "14", "merg", "list", "init"],
            ),
            ("english", "ＦＵＬＬ width, ﬁne ligatures, soft\u00adhyphen", ["full", "width", "fine", "ligatur", "softhyphen"]),
            ("fr", "L'élève et d'autres élèves", ["elev", "autr", "elev"]),
            ("de", "Die Häuser, das Haus, STRASSE und Straße", ["haus", "haus", "strass", "strass"]),
            ("ru", "Ёлки и ёлка", ["елк", "елк"]),
            ("tr", "İSTANBUL IŞIK", ["istanbul", "ısık"]),
            ("hi", "हिन्दी", ["हिन्द"]),
            ("zh", "东京大学 iPhone手机 猫", ["东京", "京大", "大学", "iphone", "手机", "猫"]),
            ("ja", "東京へ行く", ["東京", "京へ", "へ行", "行く"]),
            ("ko", "한국어를 배", ["한국", "국어", "어를", "배"]),
            ("th", "ไทย", ["ไท", "ทย"]),
            ("none", "The Debates", ["the", "debates"]),
        ],
    )
    def test_terms_of(self, language: str, text: str, terms: list[str]) -> None:
        assert Analyzer(language)(text) == terms

    @patient
    @given(ANY_TEXT)
    def test_spans_give_the_same_terms_and_lie_within_the_text_in_order(self, text: str) -> None:
        for analyze in (ENGLISH, Analyzer("ja")):
            spans = analyze.spans(text)
            assert [term for term, _, _ in spans] == analyze(text)
            assert all(0 <= start < end <= len(text) for _, start, end in spans)
            assert [start for _, start, _ in spans] == sorted(start for _, start, _ in spans)

    @patient
    @given(ANY_TEXT)
    def test_a_second_time_gives_the_same_terms(self, text: str) -> None:
        assert ENGLISH(text) == Analyzer("english")(text)

    def test_spans_are_the_words_places(self) -> None:
        text = "The zinc, 東京都"
        assert [(term, text[start:end]) for term, start, end in ENGLISH.spans(text)] == [
            ("zinc", "zinc"),
            ("東京", "東京"),
            ("京都", "京都"),
        ]

    def test_stemming_and_stop_words_can_be_left_out(self) -> None:
        assert Analyzer("en", stem=False)("the debates") == ["debates"]
        assert Analyzer("en", stop_words=False)("the debates") == ["the", "debat"]

    def test_a_code_and_a_name_are_the_same_language(self) -> None:
        assert Analyzer("EN").language == "english"
        assert Analyzer("en").fingerprint == Analyzer("english").fingerprint

    def test_whatever_changes_terms_changes_the_fingerprint(self) -> None:
        variants = [
            Analyzer("en"),
            Analyzer("de"),
            Analyzer("none"),
            Analyzer("en", stem=False),
            Analyzer("en", stop_words=False),
        ]
        assert len({analyzer.fingerprint for analyzer in variants}) == len(variants)

    def test_an_unknown_language_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(RecipeError, match=r"'klingon'.*none.*chinese \(zh\).*english \(en\)"):
            Analyzer("klingon")

    def test_a_word_of_ten_megabytes_is_one_short_term(self) -> None:
        [term] = ENGLISH("x" * 10_000_000)
        assert len(term) == 64

    @pytest.mark.data
    def test_bm25_over_its_terms_reaches_the_published_figure_on_scifact(self, shared_data: Path) -> None:
        """nDCG@10 of 0.679 (BEIR, Lucene) to 0.686 (bm25s with stems and stop words)."""
        folder = shared_data / "scifact"
        corpus = [json.loads(line) for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
        queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
        rows = [line.split("\t") for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]]
        qrels: dict[str, dict[str, int]] = {}
        for query_id, document_id, grade in rows:
            qrels.setdefault(query_id, {})[document_id] = int(grade)
        index = Bm25([(record["_id"], ENGLISH(f"{record['title']} {record['text']}")) for record in corpus])
        run = {query["_id"]: index.search(ENGLISH(query["text"])) for query in queries if query["_id"] in qrels}
        measured = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
        assert measured == pytest.approx(0.6857, abs=0.002)


ENGLISH = Analyzer("english")


class Bm25:
    """Lucene's BM25 (k1 1.2, b 0.75) in the plainest form."""

    def __init__(self, documents: list[tuple[str, list[str]]]) -> None:
        self.postings: dict[str, dict[str, int]] = {}
        for name, terms in documents:
            for term in terms:
                self.postings.setdefault(term, {}).setdefault(name, 0)
                self.postings[term][name] += 1
        self.lengths = {name: len(terms) for name, terms in documents}
        self.mean = sum(self.lengths.values()) / len(documents)

    def search(self, terms: list[str]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for term in terms:
            matches = self.postings.get(term, {})
            weight = math.log(1 + (len(self.lengths) - len(matches) + 0.5) / (len(matches) + 0.5))
            for name, count in matches.items():
                norm = 1.2 * (0.25 + 0.75 * self.lengths[name] / self.mean)
                scores[name] = scores.get(name, 0.0) + weight * count / (count + norm)
        return dict(sorted(scores.items(), key=lambda item: -item[1])[:100])
