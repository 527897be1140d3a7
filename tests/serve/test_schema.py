"""The OpenAPI description is true: schemathesis asks every route, by SCHEMA_EXAMPLES=500 for long."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from twinrank.serve.keys import Keys

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

KEY = "a-key-that-may-write"
EXAMPLES = os.environ.get("SCHEMA_EXAMPLES", "")
PHASES = "coverage,fuzzing,stateful" if EXAMPLES else "fuzzing"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "use_after_free",
    "ensure_resource_availability",
]


def test_every_route_keeps_to_its_description(live: Callable[..., str], tmp_path: Path) -> None:
    address = live(keys=Keys.of(write=[KEY]), admin=True, queue=1000)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
            *("--max-examples", EXAMPLES or "3", "--checks", ",".join(CHECKS)),
            *("--header", f"X-API-Key: {KEY}", "--exclude-path", "/admin/rebuild", "--phases", PHASES),
            *("--suppress-health-check", "all", "--generation-database", "none", "--no-color", "--workers", "1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-1000:]
