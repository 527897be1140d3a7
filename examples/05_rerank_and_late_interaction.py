"""A recipe with a reranker: words and vectors find candidates, late interaction over kept token vectors orders them.

python examples/05_rerank_and_late_interaction.py [CROSS-ENCODER]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import records

from twinrank import Collection, Recipe, TwinrankError

RECIPE = """
[tokens]            # one vector a token is kept too, from the pass that makes the passage's vector
format = "int4"
pooling = 2.0       # about two tokens share one

[[rerank]]
kind = "maxsim"
candidates = 50
weight = 0.6        # the rest is the score of words and vectors
"""
CROSS_ENCODER = """
[[rerank]]
kind = "cross-encoder"
model = {model}
candidates = 20
"""
QUERY = "mix the items of a list randomly"


def main() -> None:
    stages = RECIPE
    if len(sys.argv) > 1:
        stages += CROSS_ENCODER.format(model=repr(sys.argv[1]))
    with TemporaryDirectory() as folder, Collection(Path(folder) / "docs.twinrank", recipe=Recipe.parse(stages)) as docs:
        print(docs.add(records()))
        found = docs.search(QUERY, k=5, deadline=500)  # milliseconds; a rerank ends in time for it
        print(f"\n{QUERY}: the rank after each stage")
        print(f"{'':<24}" + "".join(f"{Path(stage).name:>12}" for stage, _ in found.stages))
        for hit in found:
            print(f"{hit.id:<24}" + "".join(f"{one.rank or '-':>12}" for one in hit.stages))
        print(f"{'milliseconds':<24}" + "".join(f"{1000 * seconds:>12.1f}" for _, seconds in found.stages))
        for certificate in found.certificates:
            print(certificate)


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
