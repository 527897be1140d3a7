"""TWINRANK → OTHER LIBRARIES: a collection, an encoder and a reranker as LangChain, LlamaIndex, Haystack and others know them.

One file a library, each with a retriever, an encoder and a reranker, in this order; a library is imported when its file is.
"""
