"""twinrank within LangChain: a collection as a retriever, MaxSim as a reranker, the encoder under a vector store.

Needs langchain-core: pip install 'twinrank[langchain]'; the same classes are there for LlamaIndex, Haystack and others.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import records

from twinrank import DEFAULT_MODEL, Collection, TwinrankError

QUERY = "run a program and read what it prints"


def main() -> None:
    from twinrank.adapters.langchain import TwinrankEmbeddings, TwinrankReranker, TwinrankRetriever

    from langchain_core.prompts import PromptTemplate, format_document  # isort: skip
    from langchain_core.vectorstores import InMemoryVectorStore  # isort: skip

    with TemporaryDirectory() as folder, Collection(Path(folder) / "docs.twinrank") as docs:
        docs.add(records(["subprocess", "tempfile"]))
        retriever = TwinrankRetriever(collection=docs, k=5, where="kind = 'function'")
        prompt = PromptTemplate.from_template("[{id}, {score:.2f}] {page_content}")
        for document in retriever.invoke(QUERY, k=2):
            print(format_document(document, prompt).splitlines()[0])

        reranker = TwinrankReranker(model=DEFAULT_MODEL, k=2)
        for document in reranker.compress_documents(retriever.invoke(QUERY), QUERY):
            print(f"{document.metadata['relevance_score']:.2f}  {document.metadata['id']}")

        store = InMemoryVectorStore(TwinrankEmbeddings())
        store.add_texts(["Run command with arguments and return its output.", "Return a new temporary file name."])
        print(store.similarity_search(QUERY, k=1)[0].page_content)


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
