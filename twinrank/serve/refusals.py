"""What a server answers where it cannot do what was asked: a status, and one sentence in the shape of OpenAI's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from twinrank.errors import (
    CollectionBusyError,
    CollectionReadOnlyError,
    InputError,
    MissingExtraError,
    ModelError,
    ModelMismatchError,
    StorageError,
    TwinrankError,
)


class Refusal(HTTPException):
    """Raised anywhere while a request is worked on; becomes its answer."""

    def __init__(self, status: int, message: str, kind: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.kind = kind or KINDS.get(status, "invalid_request_error")

    def closing(self) -> Refusal:
        """The same for a request whose body was not read to its end, so that nothing can follow on its connection."""
        return Refusal(self.status_code, self.detail, self.kind, {**(self.headers or {}), "Connection": "close"})

    @property
    def response(self) -> Response:
        return as_json(error_body(self.detail, self.kind), self.status_code, self.headers)


KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}
"""The types of an error, by its status; that of all others is invalid_request_error."""

STATUSES: tuple[tuple[type[TwinrankError], int], ...] = (
    (InputError, 400),
    (CollectionBusyError, 503),
    (CollectionReadOnlyError, 403),
    (ModelMismatchError, 409),
    (StorageError, 507),
    (MissingExtraError, 501),
    (ModelError, 500),
)


def overloaded(message: str, seconds: float = 1.0) -> Refusal:
    return Refusal(503, message, headers={"Retry-After": str(max(1, round(seconds)))})


def refusal_of(error: TwinrankError) -> Refusal:
    """What an error of the collection is over HTTP."""
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    return overloaded(str(error)) if status == 503 else Refusal(status, str(error))


def error_body(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value of plain types as the answer; NaN and infinity, which are no JSON, are an error of ours."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode(), status, headers, media_type="application/json")
