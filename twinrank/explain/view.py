"""An explanation for people: at a terminal in colour, anywhere with marks that say the same without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from twinrank.explain.explanation import (
    Explanation,
    Occlusion,
    PairSeen,
    Part,
    ProbabilitySeen,
    StageSeen,
    Sum,
    Token,
    TokensSeen,
    VectorsSeen,
    WordsSeen,
)
from twinrank.text import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

LEVELS = 0.1, 1 / 3, 2 / 3
"""Shares of the largest effect in a text from which a part has one mark, two, three."""

UP = "green", "bold green", "bold reverse green"
DOWN = "red", "bold red", "bold reverse red"
SHOWN_MATCH = 40
"""Characters of what a token of the query matched."""

SHOWN_FEATURES = 5
INDENT = 4


def show_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """Print it, as wide as the console is; without colour where it is no terminal."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    out = console or Console(highlight=False)
    view = View(explanation, raised=out.encoding.lower().startswith("utf"))
    for title, parts in view.sections():
        out.print(Text(title, style="bold"))
        for part in parts:
            out.print(Padding.indent(part, INDENT))
        out.print()


class View:
    """The sections of an explanation; `raised` marks words with small raised signs, for which a terminal needs Unicode."""

    def __init__(self, explanation: Explanation, *, raised: bool = True) -> None:
        self.explanation = explanation
        self.plus, self.minus = ("⁺", "⁻") if raised else ("+", "-")

    def sections(self) -> Iterator[tuple[str, list[RenderableType]]]:
        """Title, and what stands under it."""
        told = self.explanation
        yield f"{told.id}  {told.title}".rstrip(), list(self._head())
        yield "way through the search", [_stages(told.stages), *(line for one in told.sums for line in _sum(one))]
        if told.words is not None:
            yield f"words, BM25: {told.words.score:.4f}", list(self._words(told.words))
        if told.vectors is not None:
            yield f"vectors, {told.vectors.model}: {told.vectors.score:.4f}", list(self._vectors(told.vectors))
        if told.tokens is not None:
            yield f"tokens, {told.tokens.model}: {told.tokens.score:.4f}", list(self._tokens(told.tokens))
        for pair in told.pairs:
            yield f"pair, {pair.model}: {pair.score:.4f}", list(self._pair(pair))
        if told.probability is not None:
            yield _probability_title(told.probability), list(_probability(told.probability))
        if self._left_out():
            yield "marks", [self._legend()]

    def _head(self) -> Iterator[RenderableType]:
        told, passage = self.explanation, self.explanation.passage
        yield _plain(f"for: {told.query}")
        if told.forms != (told.query,):
            yield _plain(f"searched as: {' | '.join(told.forms)}")
        yield _plain(told.outcome, "bold")
        place = f"characters {passage.start} to {passage.end} of its {passage.part or 'text'}"
        yield _plain(f"explained by its passage {passage.number + 1} of {passage.of}: {place}", "dim")
        if told.filter is not None:
            kept = f"{told.filter.passages:,} of {counted(told.filter.of, 'passage')}"
            yield _plain(f"the condition {told.filter.where!r} leaves {kept}")
        for certificate in told.certificates:
            yield _plain(str(certificate), "dim")
        for note in told.notes:
            yield _plain(note, "dim")

    # -- what each architecture saw --------------------------------------------------------------------------------------

    def _words(self, seen: WordsSeen) -> Iterator[RenderableType]:
        there = [term for term in seen.terms if term.count]
        table = _grid(1)
        for term in there:
            often = "once" if term.count == 1 else f"{term.count} times"
            rare = f"in {counted(term.passages, 'passage')}, idf {term.idf:.2f}"
            table.add_row(", ".join(term.words), f"+{term.adds:.4f}", f"{often} here; {rare}")
        if there:
            yield table
        absent = ", ".join("/".join(term.words) for term in seen.terms if not term.count)
        if absent:
            yield _plain(f"not in the passage: {absent}", "red")
        if not seen.terms:
            yield _plain("the query holds no word that counts")

    def _vectors(self, seen: VectorsSeen) -> Iterator[RenderableType]:
        if not seen.searched:
            yield _plain("the recipe does not search by these", "dim")
        yield from self._texts(seen.query, seen.passage)
        yield _plain(_cost(seen.passes, seen.seconds), "dim")

    def _pair(self, seen: PairSeen) -> Iterator[RenderableType]:
        yield from self._texts(seen.query, seen.passage)
        yield _plain(_cost(seen.passes, seen.seconds), "dim")

    def _tokens(self, seen: TokensSeen) -> Iterator[RenderableType]:
        told = self.explanation
        kept = "those that the collection keeps" if seen.stored else "from a pass of the encoder just now"
        yield _plain(f"the sum of each token's best match (MaxSim); the passage's vectors: {kept}", "dim")
        table, others = _grid(1), 0.0
        for match in seen.matches:
            token, other = seen.query_tokens[match.query], seen.passage_tokens[match.passage]
            if token.spans:
                table.add_row(_said(token, seen.query), f"{match.similarity:+.4f}", _said(other, told.passage.text))
            else:
                others += match.similarity
        yield table
        count = sum(not token.spans for token in seen.query_tokens)
        if count:
            yield _plain(f"{counted(count, 'token')} that are no text of the query (markers, masks): {others:+.4f}")
        if seen.dropped:
            yield _plain(f"{counted(seen.dropped, 'token')} of the passage not read, from character {seen.seen}", "yellow")

    def _texts(self, query: Occlusion, passage: Occlusion) -> Iterator[RenderableType]:
        for name, text in (("query", query), ("passage", passage)):
            largest = max((abs(effect.effect) for effect in text.effects), default=0.0)
            unit = text.unit if text.unit[:1].isdigit() else f"a {text.unit}"
            said = f", {unit} left out at a time, effects up to {largest:.4f}" if text.unit else ""
            yield _plain(f"{name}{said}:", "dim")
            yield self.marked(text)

    def marked(self, text: Occlusion) -> Text:
        """The text with marks behind the parts that matter, and what the model does not read told apart."""
        from rich.text import Text

        largest = max((abs(effect.effect) for effect in text.effects), default=0.0)
        shown, last = Text(), 0
        for effect in text.effects:
            level = sum(abs(effect.effect) >= share * largest for share in LEVELS) if largest else 0
            shown.append(_on_one_line(text.text[last : effect.start]))
            part = _on_one_line(text.text[effect.start : effect.end])
            sign, styles = (self.plus, UP) if effect.effect > 0 else (self.minus, DOWN)
            bare = part.rstrip()
            shown.append(bare + sign * level, styles[level - 1] if level else "")
            shown.append(part[len(bare) :])
            last = effect.end
        shown.append(_on_one_line(text.text[last : text.seen]))
        if text.dropped:
            shown.append(f" … {counted(text.dropped, 'token')} not read: ", "yellow")
            shown.append(_on_one_line(text.text[text.seen :]), "dim")
        return shown

    def _left_out(self) -> bool:
        told = self.explanation
        seen = ([told.vectors] if told.vectors else []) + list(told.pairs)
        return any(one.query.effects or one.passage.effects for one in seen)

    def _legend(self) -> Text:
        from rich.text import Text

        legend = Text()
        for level, share in zip((3, 2, 1), reversed(LEVELS), strict=True):
            legend.append("word" + self.plus * level, UP[level - 1])
            legend.append(" ")
            legend.append("word" + self.minus * level, DOWN[level - 1])
            legend.append(f"  {share:.0%} or more of the largest effect\n")
        return legend.append(
            f"{self.plus} without it the score is lower, {self.minus} without it the score is higher; effects do not add up"
        )


# -- the way through the search ------------------------------------------------------------------------------------------


def _stages(stages: tuple[StageSeen, ...]) -> Table:
    table = _grid(1)
    for stage in stages:
        table.add_row(stage.stage, "–" if stage.score is None else f"{stage.score:.4f}", _standing(stage))
    return table


def _standing(stage: StageSeen) -> str:
    if stage.rank is not None:
        return f"rank {stage.rank} of {stage.of}"
    if stage.kind == "rerank":
        if stage.needed is None or stage.came is None:
            return "not reranked"
        return f"not reranked: it came with {stage.came:.4f} and needed {stage.needed:.4f}"
    if stage.score is None:
        return "knows nothing of it"
    told = f"not among its {counted(stage.of, 'candidate')}" + (f", but at rank {stage.behind:,}" if stage.behind else "")
    return told + (f"; {stage.needed:.4f} would have been needed" if stage.needed is not None else "")


def _sum(one: Sum) -> Iterator[RenderableType]:
    if one.note:
        yield _plain(one.note, "dim")
    yield _plain(f"{one.stage} {one.score:.4f}, the sum of:")
    table = _grid(1)
    for part in one.parts:
        table.add_row(f"  {part.name}", f"{part.adds:+.4f}", _share(part, one.method))
    yield table


def _share(part: Part, method: str) -> str:
    """How a part came to what it adds."""
    if method == "rank":
        return f"weight {part.weight:.3g}, " + ("not among its candidates" if part.rank is None else f"rank {part.rank}")
    score = "nothing" if part.score is None else f"{part.score:.4f}"
    if part.low is None or part.high is None:
        return f"weight {part.weight:.4g} × {score}"
    return f"weight {part.weight:.3g}, {score} on the way from {part.low:.4f} to {part.high:.4f}"


def _probability_title(seen: ProbabilitySeen) -> str:
    return "probability: none" if seen.probability is None else f"probability of relevance: {seen.probability:.1%}"


def _probability(seen: ProbabilitySeen) -> Iterator[RenderableType]:
    if seen.note:
        yield _plain(seen.note)
    if not seen.features:
        return
    table = _grid(1)
    for feature in seen.features[:SHOWN_FEATURES]:
        table.add_row(feature.name, f"{feature.adds:+.3f}", f"it is {feature.value:.4g}")
    yield _plain(f"what moved it, in log odds (base {seen.base:+.3f}, by {seen.method}):", "dim")
    yield table
    rest = seen.features[SHOWN_FEATURES:]
    if rest:
        yield _plain(f"{counted(len(rest), 'other feature')}: {sum(feature.adds for feature in rest):+.3f}")


# -- small things --------------------------------------------------------------------------------------------------------


def _grid(right: int) -> Table:
    """Three columns, the one numbered `right` to the right."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for number in range(3):
        table.add_column(justify="right" if number == right else "left", overflow="fold", ratio=None)
    return table


def _plain(text: str, style: str = "") -> Text:
    """As it stands: what a document holds is no markup."""
    from rich.text import Text

    return Text(text, style=style)


def _said(token: Token, text: str) -> str:
    """The characters that a vector stands for, or the token's name."""
    parts = dict.fromkeys(_piece(text, start, end) for start, end in _joined(token.spans))
    said = ", ".join(parts) or token.text
    return said if len(said) <= SHOWN_MATCH else said[: SHOWN_MATCH - 1] + "…"


def _piece(text: str, start: int, end: int) -> str:
    """Characters of a text, with dots where a word goes on beside them."""
    inside = text[start:end]
    before = start > 0 and text[start - 1].isalnum() and inside[:1].isalnum()
    behind = end < len(text) and text[end].isalnum() and inside[-1:].isalnum()
    return ("…" if before else "") + _on_one_line(inside) + ("…" if behind else "")


def _joined(spans: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Spans that touch as one: the pieces of a word."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _cost(passes: int, seconds: float) -> str:
    return f"{counted(passes, 'text')} read in {1000 * seconds:.0f} ms"


def _on_one_line(text: str) -> str:
    return "".join(" " if character in "\r\n\t" else character for character in text)
