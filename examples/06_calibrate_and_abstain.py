"""A score that means something: probabilities of relevance, and "nothing relevant found" where nothing is.

Eighty judged queries are enough to see how it works, and too few to promise a small risk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import write_judged

from twinrank import Collection, TwinrankError
from twinrank.errors import CalibrationError
from twinrank.evaluate.calibrating import calibrate
from twinrank.evaluate.calibration_report import table
from twinrank.readers import read_dataset

QUERIES = ["Merge sorted inputs into one sorted output.", "how do I renew a passport?"]


def main() -> None:
    with TemporaryDirectory() as temporary:
        data = write_judged(Path(temporary) / "docstrings")
        with Collection(Path(temporary) / "docs.twinrank") as docs:
            docs.add(data / "corpus.jsonl")
            # Fitted on one split, judged on the other; of a quarter of the queries the answer is withheld.
            result = calibrate(docs, read_dataset(data, split="dev"), read_dataset(data, split="test"))
            print(table(result))
            docs.keep_calibration(result.calibration)

            for query in QUERIES:
                found = docs.search(query, k=3, min_probability=0.2)
                print(f"\n{query}\n    {found.verdict}")
                for hit in found:
                    print(f"    {hit.probability:.0%}  {hit.id}")
            try:
                print(f"\n{docs.search(QUERIES[0], risk=0.05).verdict}")
            except CalibrationError as error:
                print(f"\na risk is promised or refused: {error}")


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
