"""The architectures by themselves: what each makes of the same three sentences.

python examples/02_models.py [CROSS-ENCODER]
"""

from __future__ import annotations

import sys

from twinrank import DEFAULT_MODEL, BiEncoder, CrossEncoder, LateInteraction, TwinrankError, TwinTower

QUERY = "how do I copy a whole folder?"
PASSAGES = [
    "Recursively copy a directory tree and return the destination directory.",
    "Copy data and mode bits of a file.",
    "Return a shallow copy of a list.",
]


def main() -> None:
    # A bi-encoder: query and passage apart, one vector each, compared by cosine.
    encoder = BiEncoder()
    query = encoder.encode([QUERY], side="query")  # (1, 384)
    passages = encoder.encode(PASSAGES)  # (3, 384)
    show(encoder, encoder.similarity(query, passages)[0].tolist())

    # A twin tower has a network a side; here the same one stands on both.
    towers = TwinTower(query=DEFAULT_MODEL, document=DEFAULT_MODEL)
    show(towers, towers.similarity(towers.encode([QUERY], side="query"), towers.encode(PASSAGES))[0].tolist())

    # Late interaction: one vector a token, each token of the query looks for its best match (MaxSim).
    late = LateInteraction(encoder)  # any bi-encoder does it untrained; a ColBERT was trained for it
    show(late, late.score([(QUERY, passage) for passage in PASSAGES]).tolist())

    # A cross-encoder reads the pair together. None is installed with twinrank: name one that you have.
    if len(sys.argv) > 1:
        cross = CrossEncoder(sys.argv[1])
        show(cross, cross.score([(QUERY, passage) for passage in PASSAGES]).tolist())
    else:
        print("CrossEncoder\n    name one: python examples/02_models.py cross-encoder/ms-marco-MiniLM-L6-v2")

    for pair in encoder.duplicates(["Sort a list.", "Put a list in order.", "Open a file."], threshold=0.6):
        print(f"\nnearly the same ({pair.score:.2f}): texts {pair.first} and {pair.second}")


def show(model: object, scores: list[float]) -> None:
    print(model)
    for score, passage in sorted(zip(scores, PASSAGES, strict=True), reverse=True):
        print(f"    {score:6.3f}  {passage}")


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
