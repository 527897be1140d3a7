"""Serving: a collection over HTTP, asked by a client of the standard library; keys say who may read and who may write.

Needs fastapi and uvicorn: pip install 'twinrank[serve]'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from docstrings import records

from twinrank import DEFAULT_MODEL, Collection, TwinrankError

READER, WRITER = "the key of a reader", "the key of a writer"


def ask(address: str, body: dict[str, Any], key: str = READER) -> Any:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urlopen(Request(address, json.dumps(body).encode(), headers), timeout=30) as answer:
        return json.load(answer)


def main() -> None:
    import_module("twinrank.serve")  # says what to install where something is missing
    with TemporaryDirectory() as folder:
        place = Path(folder) / "docs.twinrank"
        with Collection(place) as docs:
            docs.add(records(["shutil", "tempfile"]))
        # At a shell: twinrank serve -c docs.twinrank --port 8080, and the page is at http://127.0.0.1:8080
        command = [sys.executable, "-m", "twinrank", "serve", "-c", str(place), "--port", "0", "--quiet"]
        keys = {"TWINRANK_READ_KEYS": READER, "TWINRANK_WRITE_KEYS": WRITER}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **keys}) as server:
            try:
                use(next(line.split()[-1] for line in server.stderr or () if line.startswith("serving at ")))
            finally:
                server.terminate()  # requests under way are answered first


def use(address: str) -> None:
    found = ask(f"{address}/search", {"query": "a folder that is gone afterwards", "k": 3, "where": "module = 'tempfile'"})
    print("\n".join(f"{hit['score']:.2f}  {hit['id']}" for hit in found["hits"]))
    print(ask(f"{address}/documents", {"documents": [{"id": "note", "text": "Zinc may shorten a cold."}]}, WRITER))
    print(ask(f"{address}/search", {"query": "what shortens a cold?", "k": 1})["hits"][0]["id"])
    vectors = ask(f"{address}/v1/embeddings", {"input": ["a cold"], "model": DEFAULT_MODEL})["data"]  # as OpenAI's clients ask
    print(f"{len(vectors[0]['embedding'])} dimensions")
    try:
        ask(f"{address}/documents/delete", {"ids": ["note"]}, READER)
    except HTTPError as error:
        print(f"{error.code}: {json.load(error)['error']['message']}")


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
