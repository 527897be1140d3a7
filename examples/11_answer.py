"""Answers: the sentences of the documents that answer a question, quoted exactly with their places, within a budget.

A language model may write the answer instead, and each of its sentences is then checked against what it cites; any server
with an OpenAI-compatible address will do: python examples/11_answer.py http://127.0.0.1:8080/v1 MODEL
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import records

from twinrank import Collection, TwinrankError
from twinrank.answer.endpoint import Endpoint

QUESTIONS = ["how are symbolic links treated when a directory tree is copied?", "when is a temporary directory removed?"]


def main() -> None:
    with TemporaryDirectory() as folder, Collection(Path(folder) / "docs.twinrank") as docs:
        docs.add(records(["shutil", "tempfile", "zipfile", "pathlib"]))
        for question in QUESTIONS:
            answer = docs.answer(question, quotes=2, budget=1000)
            print(f"{question}\n{answer}\n{answer.budget}\n")
            quote = answer.quotes[0]  # letter for letter what stands in the document
            assert docs.get([quote.id])[0].text[quote.start : quote.end] == quote.text

        nothing = docs.answer(QUESTIONS[0], where="kind = 'class' and words < 3")
        print(f"and where nothing is found: {nothing.text}")

        if len(sys.argv) > 2:
            written = docs.answer(QUESTIONS[0], endpoint=Endpoint(sys.argv[1], sys.argv[2]))
            print(f"\n{written}")
            for claim in written.claims:
                print(f"    {claim.standing}: {claim.text}")


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
