"""A collection over HTTP: search, documents, embeddings and reranking in the shapes that clients send; one router a file."""

from __future__ import annotations

from twinrank.errors import MissingExtraError

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise MissingExtraError("serving needs FastAPI, uvicorn and prometheus-client: pip install 'twinrank[serve]'") from error
