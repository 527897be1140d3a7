"""Walking: what of a folder is read, in which order, under which ids, and what is said of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from twinrank.errors import DataError
from twinrank.readers import Problem, estimate, read


def grow(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Text of {name}.")


def ids_and_problems(path: Path) -> tuple[list[str], list[Problem]]:
    problems: list[Problem] = []
    return [document.id for document in read(path, on_problem=problems.append)], problems


def test_a_folder_is_read_in_sorted_order_under_relative_paths(tmp_path: Path) -> None:
    grow(tmp_path, "b.txt", "a/z.md", "a/b/c.txt", "c.py", "Makefile", "a.txt")
    ids, problems = ids_and_problems(tmp_path)
    assert ids == ["Makefile", "a/b/c.txt", "a/z.md", "a.txt", "b.txt", "c.py"]
    assert problems == []


def test_a_single_file_is_named_by_its_name_and_knows_its_source(tmp_path: Path) -> None:
    grow(tmp_path, "a.txt")
    [found] = read(tmp_path / "a.txt")
    assert (found.id, found.text, found.source) == ("a.txt", "Text of a.txt.", str(tmp_path / "a.txt"))


def test_hidden_files_and_tools_folders_are_passed_over_and_counted(tmp_path: Path) -> None:
    grow(tmp_path, "a.txt", ".hidden", ".git/config", "node_modules/x.js", "sub/__pycache__/x.txt", "papers.twinrank/store.db")
    ids, [note] = ids_and_problems(tmp_path)
    assert ids == ["a.txt"]
    assert note.kind == "note"
    assert note.reason == "passed over 2 hidden files and folders and folders named __pycache__, node_modules, papers.twinrank"


def test_a_hidden_folder_that_is_asked_for_by_name_is_read(tmp_path: Path) -> None:
    grow(tmp_path, ".notes/a.txt")
    assert ids_and_problems(tmp_path / ".notes") == (["a.txt"], [])


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    grow(tmp_path, "a/b.txt")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "a")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a" / "b.txt")
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "gone.txt")
    ids, [problem] = ids_and_problems(tmp_path)
    assert ids == ["a/b.txt", "link.txt"]
    assert problem == Problem(str(tmp_path / "nowhere.txt"), "cannot be read: No such file or directory", "skipped")


def test_a_folder_with_a_corpus_gives_only_that(tmp_path: Path) -> None:
    grow(tmp_path, "sub/queries.jsonl", "sub/README.md", "sub/qrels/test.tsv", "z.txt")
    (tmp_path / "sub" / "corpus.jsonl").write_text('{"_id": "d1", "title": "", "text": "t"}\n{"text": "u"}\n')
    assert ids_and_problems(tmp_path) == (["d1", "sub/corpus.jsonl#2", "z.txt"], [])
    assert ids_and_problems(tmp_path / "sub") == (["d1", "corpus.jsonl#2"], [])


def test_binary_and_empty_files_are_named_and_skipped(tmp_path: Path) -> None:
    grow(tmp_path, "z.txt")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "c.txt").write_text(" \n\n")
    (tmp_path / "d").write_bytes(b"\x7fELF\x02\x01\x01\x00")
    ids, problems = ids_and_problems(tmp_path)
    assert ids == ["z.txt"]
    assert [(Path(problem.path).name, problem.reason, problem.kind) for problem in problems] == [
        ("a.png", "is not text, nor of a kind that is read (.png)", "skipped"),
        ("b.txt", "is empty", "skipped"),
        ("c.txt", "holds no text", "skipped"),
        ("d", "is not text, nor of a kind that is read (no suffix)", "skipped"),
    ]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    ids, [problem] = ids_and_problems(tmp_path)
    assert ids == []
    assert problem.reason == "is not a regular file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named_and_skipped(tmp_path: Path) -> None:
    grow(tmp_path, "a.txt", "closed/b.txt", "z.txt")
    (tmp_path / "a.txt").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        ids, problems = ids_and_problems(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert ids == ["z.txt"]
    assert [problem.reason for problem in problems] == ["cannot be read: Permission denied"] * 2


def test_a_folder_with_a_documents_name_is_a_folder(tmp_path: Path) -> None:
    grow(tmp_path, "a.pdf/b.txt", "c.jsonl/d.txt")
    assert ids_and_problems(tmp_path) == (["a.pdf/b.txt", "c.jsonl/d.txt"], [])


def test_names_with_emoji_are_ids_and_names_with_line_ends_are_refused(tmp_path: Path) -> None:
    grow(tmp_path, "😀 notes.txt", "two\nlines.txt")
    ids, [problem] = ids_and_problems(tmp_path)
    assert ids == ["😀 notes.txt"]
    assert "holds a line end" in problem.reason


def test_a_name_that_is_no_utf_8_is_read_as_latin_1(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xefve.txt")).write_text("Text.")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert ids_and_problems(tmp_path) == (["naïve.txt"], [])


def test_a_path_that_does_not_exist_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", "x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="no file or folder"):
            read(path)


def test_without_a_listener_what_is_skipped_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"a\.txt: is empty"):
        assert list(read(tmp_path)) == []


def test_documents_come_one_by_one(tmp_path: Path) -> None:
    grow(tmp_path, "a.txt", "b.txt")
    stream = read(tmp_path)
    assert next(stream).id == "a.txt"
    (tmp_path / "b.txt").write_text("Changed after the first was taken.")
    assert next(stream).text.startswith("Changed")


def test_a_listener_that_raises_ends_the_reading(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")

    def refuse(problem: Problem) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(read(tmp_path, on_problem=refuse))


def test_the_estimate_counts_files_and_lines(tmp_path: Path) -> None:
    grow(tmp_path, "a.txt", "sub/b.txt")
    (tmp_path / "c.jsonl").write_text('{"id": 1, "text": "t"}\n' * 7)
    assert estimate(tmp_path) == 9
    assert estimate(tmp_path / "c.jsonl") == 7
    assert estimate(tmp_path / "gone") is None


def test_a_deep_folder_does_no_harm(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "a.txt").write_text("Deep.")
    assert ids_and_problems(tmp_path)[0] == ["d/" * 300 + "a.txt"]
