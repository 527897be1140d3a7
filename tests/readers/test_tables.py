"""Files of many records: every well-formed record comes out, every malformed one is named with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.readers import Problem, read
from twinrank.types import Document

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine does not decide


def read_all(path: Path) -> tuple[list[Document], list[str]]:
    """The documents, and the problems as lines."""
    problems: list[Problem] = []
    found = list(read(path, on_problem=problems.append))
    return found, [f"{problem.kind}: {problem.reason}" for problem in problems]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


class TestJsonLines:
    def test_beirs_keys_are_read(self, tmp_path: Path) -> None:
        line = json.dumps({"_id": "d1", "title": "Zinc", "text": "Helps.", "metadata": {"year": 2021}, "lang": "en"})
        [found], problems = read_all(written(tmp_path, "a.jsonl", line))
        assert (found.id, found.title, found.text, found.fields) == ("d1", "Zinc", "Helps.", {"year": 2021, "lang": "en"})
        assert problems == []

    def test_a_record_without_an_id_is_named_by_its_line(self, tmp_path: Path) -> None:
        found, _ = read_all(
            written(tmp_path, "a.jsonl", '{"text": "one"}\n\n{"body": "three", "id": 0}\n{"id": null, "text": "four"}\n')
        )
        assert [(document.id, document.text) for document in found] == [
            ("a.jsonl#1", "one"),
            ("0", "three"),
            ("a.jsonl#4", "four"),
        ]

    def test_a_malformed_line_is_a_problem_and_the_others_go_on(self, tmp_path: Path) -> None:
        lines = [
            '{"id": "a", "text": "t"}',
            '{"id": "b", "text": ',
            "[1]",
            '{"id": "c"}',
            '{"id": "d", "text": "t", "x": [{"y": 1}, 2]}',
            '{"id": "e", "text": "t", "x": NaN}',
            '{"id": "f", "text": "t", "x": 123456789012345678901234567890}',
            "[" * 100_000,
            "1" * 10_000,
            '{"id": "g", "text": "half \\ud800 pair"}',
            '{"id": "h", "text": "nul \\u0000 byte"}',
            '{"id": "i\\nj", "text": "t"}',
            '{"id": "k", "text": "t"}',
        ]
        found, problems = read_all(written(tmp_path, "a.jsonl", "\n".join(lines)))
        assert [(document.id, document.text) for document in found] == [
            ("a", "t"),
            ("g", "half � pair"),
            ("h", "nul   byte"),
            ("k", "t"),
        ]
        expected = [
            "line 2: not JSON",
            "line 3: expected a JSON object, got list",
            "line 4: document 'c' has neither",
            "line 5: document 'd': an item of the field 'x' is dict",
            "line 6: document 'e': the field 'x' is nan",
            "line 7: document 'f': the field 'x' is an integer beyond 64 bits",
            "line 8: not JSON (nested too deeply)",
            "line 9: not JSON",
            "line 12: the id 'i\\nj'",
        ]
        assert len(problems) == len(expected)
        assert all(said.startswith(f"skipped: {start}") for said, start in zip(problems, expected, strict=True))

    def test_invalid_utf_8_is_read_as_well_as_it_goes_and_noted_once(self, tmp_path: Path) -> None:
        lines = ['{"id": "a", "text": "naïve"}', '{"id": "b", "text": "café"}']
        found, problems = read_all(written(tmp_path, "a.jsonl", "\n".join(lines).encode("latin-1")))
        assert [document.text for document in found] == ["naïve", "café"]
        assert problems == ["note: is not UTF-8; read as Windows-1252: convert it if that is wrong"]

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_a_byte_order_mark_is_understood(self, tmp_path: Path, encoding: str) -> None:
        found, problems = read_all(
            written(tmp_path, "a.jsonl", '{"id": "a", "text": "東京"}\n{"id": "b", "text": "é"}'.encode(encoding))
        )
        assert ([document.text for document in found], problems) == (["東京", "é"], [])

    def test_a_packed_file_is_unpacked_and_a_truncated_one_named(self, tmp_path: Path) -> None:
        packed = gzip.compress("".join(f'{{"id": {i}, "text": "number {i}"}}\n' for i in range(1000)).encode())
        found, problems = read_all(written(tmp_path, "a.jsonl.gz", packed))
        assert (len(found), problems) == (1000, [])
        found, [problem] = read_all(written(tmp_path, "b.jsonl.gz", packed[: len(packed) // 2]))
        assert 0 < len(found) < 1000
        assert problem.startswith("skipped: is damaged")


class TestJson:
    @pytest.mark.parametrize(
        "content",
        [
            '[{"id": "a", "text": "t"}]',
            '{"documents": [{"id": "a", "text": "t"}], "count": 1}',
            '{"id": "a", "text": "t"}',
            '{"id": "a", "text": "t"}\n{"id": "b"}',
            '\ufeff[{"id": "a", "text": "t"}]',
        ],
    )
    def test_lists_single_objects_and_misnamed_json_lines_are_read(self, tmp_path: Path, content: str) -> None:
        found, _ = read_all(written(tmp_path, "a.json", content))
        assert [document.id for document in found] == ["a"]

    @pytest.mark.parametrize(
        "content", ['{"a": ', "3", '"text"', '{"name": "package", "version": 1}', "[[1]]", "nonsense", '[{"a": 1}, {"a": 2}]']
    )
    def test_what_holds_no_documents_is_skipped_as_a_whole(self, tmp_path: Path, content: str) -> None:
        found, [problem] = read_all(written(tmp_path, "a.json", content))
        assert found == []
        assert problem.startswith("skipped")


class TestCsv:
    def test_columns_become_typed_fields(self, tmp_path: Path) -> None:
        rows = [
            "ID,Title,Abstract,year,score,open,code,mixed,Publication Date",
            '007,Zinc,"It helps, a bit.\nTruly.",2021,0.5,true,01,1,2021-05-01',
            "8,Cold,It lasts.,,2,FALSE,2,x,",
        ]
        found, problems = read_all(written(tmp_path, "a.csv", "\n".join(rows)))
        assert [(document.id, document.title, document.text) for document in found] == [
            ("007", "Zinc", "It helps, a bit.\nTruly."),
            ("8", "Cold", "It lasts."),
        ]
        assert found[0].fields == {
            "year": 2021,
            "score": 0.5,
            "open": True,
            "code": "01",
            "mixed": "1",
            "Publication_Date": "2021-05-01",
        }
        assert found[1].fields == {
            "year": None,
            "score": 2.0,
            "open": False,
            "code": "2",
            "mixed": "x",
            "Publication_Date": None,
        }
        assert problems == ["note: columns renamed so that they can name fields: 'Publication Date' → Publication_Date"]

    @pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
    def test_the_delimiter_is_found(self, tmp_path: Path, name: str, delimiter: str) -> None:
        content = "\r\n".join(delimiter.join(row) for row in (["id", "text"], ["a", "one"], ["b", "two"]))
        found, _ = read_all(written(tmp_path, name, content))
        assert [(document.id, document.text) for document in found] == [("a", "one"), ("b", "two")]

    def test_tab_separated_text_keeps_its_quotation_marks(self, tmp_path: Path) -> None:
        found, problems = read_all(written(tmp_path, "a.tsv", 'id\ttext\na\t"Yes" he said\nb\t"\nc\tx\n'))
        assert [document.text for document in found] == ['"Yes" he said', '"', "x"]
        assert problems == []

    def test_ragged_rows_are_named_and_short_ones_filled(self, tmp_path: Path) -> None:
        found, problems = read_all(written(tmp_path, "a.csv", "id,text,n\na,one,1\n\nb,two,2,3,4\nc,three\nd\n"))
        assert [(document.id, document.fields) for document in found] == [("a", {"n": 1}), ("c", {})]
        assert problems == [
            "skipped: line 4: has 5 cells where the header has 3",
            "skipped: line 6: document 'd' has neither a text nor a title",
        ]

    def test_a_quotation_mark_that_is_never_closed_is_named(self, tmp_path: Path) -> None:
        found, [problem] = read_all(written(tmp_path, "a.csv", 'id,text\na,one\nb,"two\nc,three\n'))
        assert [document.id for document in found] == ["a"]
        assert problem.startswith("skipped: line 3: unexpected end of data")

    def test_without_a_column_of_text_the_columns_are_named(self, tmp_path: Path) -> None:
        found, problems = read_all(written(tmp_path, "a.csv", "id,year\na,2021\n"))
        assert found == []
        assert problems == ["skipped: has no column of text; it has 'id', 'year'; name one of them 'text' or 'title'"]

    def test_rows_without_an_id_are_named_by_their_line(self, tmp_path: Path) -> None:
        found, _ = read_all(written(tmp_path, "a.csv", 'text\n"one\nmore"\ntwo\n'))
        assert [document.id for document in found] == ["a.csv#2", "a.csv#4"]

    def test_nul_bytes_and_western_letters_do_no_harm(self, tmp_path: Path) -> None:
        found, problems = read_all(written(tmp_path, "a.csv", b"id,text\na,na\xefve\nb,nul\x00byte\n"))
        assert [document.text for document in found] == ["naïve", "nul byte"]
        assert problems == ["note: is not UTF-8; read as Windows-1252: convert it if that is wrong"]

    def test_column_names_of_other_scripts_are_numbered(self, tmp_path: Path) -> None:
        [found], [note] = read_all(written(tmp_path, "a.csv", "text,год,год\nt,1,2\n"))
        assert found.fields == {"column_2": 1, "column_3": 2}
        assert "'год' → column_2" in note

    @patient
    @given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=4), max_size=6))
    def test_any_rows_give_documents_or_problems(self, tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
        path = tmp_path_factory.getbasetemp() / "any.csv"
        content = "id,text\n" + "\n".join(",".join(row) for row in rows)
        path.write_bytes(content.encode("utf-8", "replace"))
        found, problems = read_all(path)
        assert all(document.text for document in found)
        assert all(problem.startswith(("skipped: line", "note")) for problem in problems)


class TestTrec:
    SOURCE = """<DOC>
<DOCNO> AP-1 </DOCNO>
<HEADLINE>Zinc &amp;
colds</HEADLINE>
<TEXT>
First part. <B>Bold</B> 3 < 5.
</TEXT>
<TEXT>Second.</TEXT>
</DOC>
<DOC><DOCNO>AP-2</DOCNO>All of it.</DOC>
<doc>
<docno>AP-3</docno>
"""

    @pytest.mark.parametrize("name", ["ap880212", "a.trec", "a.sgml", "a.xml"])
    def test_the_documents_are_read_whatever_the_files_name(self, tmp_path: Path, name: str) -> None:
        found, problems = read_all(written(tmp_path, name, self.SOURCE))
        assert [(document.id, document.title) for document in found] == [("AP-1", "Zinc & colds"), ("AP-2", "")]
        assert " ".join(found[0].text.split()) == "First part. Bold 3 < 5. Second."
        assert found[1].text == "All of it."
        assert problems == ["skipped: line 11: <DOC> has no end"]

    def test_a_packed_file_is_read(self, tmp_path: Path) -> None:
        found, _ = read_all(written(tmp_path, "ap.gz", gzip.compress(self.SOURCE.encode())))
        assert [document.id for document in found] == ["AP-1", "AP-2"]
