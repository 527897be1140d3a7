"""Sources → the sentences that answer best, quoted letter for letter with their places."""

from __future__ import annotations

from collections.abc import Sequence

from twinrank.answer.excerpts import units_of
from twinrank.answer.likeness import Likeness
from twinrank.answer.result import Quote, Source


def quote(question: str, sources: Sequence[Source], most: int, likeness: Likeness) -> tuple[Quote, ...]:
    """The `most` best sentences of the sources, best first; of equal texts one, equal scores in the order of the sources."""
    places = [
        (source, excerpt, start, end)
        for source in sources
        for excerpt in source.excerpts
        for start, end in units_of(excerpt.text)
    ]
    if not places:
        return ()
    texts = [excerpt.text[start:end] for _, excerpt, start, end in places]
    titled = [f"{source.title} {text}".strip() for (source, *_), text in zip(places, texts, strict=True)]
    scores = likeness.score(question, texts, titled, [source.score for source, *_ in places])
    order = sorted(range(len(places)), key=lambda place: (-scores[place], place))
    quotes: dict[str, Quote] = {}
    for place in order:
        source, excerpt, start, end = places[place]
        same = " ".join(texts[place].split()).casefold()
        if same not in quotes:
            quotes[same] = Quote(
                text=texts[place],
                source=source.number,
                id=source.id,
                title=source.title,
                start=excerpt.start + start,
                end=excerpt.start + end,
                score=float(scores[place]),
                part=excerpt.part,
            )
        if len(quotes) == most:
            break
    return tuple(quotes.values())
