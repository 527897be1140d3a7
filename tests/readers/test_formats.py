"""Single documents: what is read of each kind of file, and what is said of a damaged one."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import docx
import pypdf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.errors import DataError
from twinrank.readers import Problem, read
from twinrank.readers.formats import decode, read_docx, read_html, read_markdown, read_pdf, read_rst, read_text
from twinrank.types import Document

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine does not decide


def pdf_of(*pages: str, title: str = "") -> bytes:
    """A PDF file made by hand: a page for each text."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for i, text in enumerate(pages):
        shown = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer << /Size {size} /Root 1 0 R /Info {size - 1} 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    return data + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def docx_of() -> bytes:
    word = docx.Document()
    word.add_heading("Zinc and colds", level=1)
    word.add_paragraph("Zinc helps.")
    table = word.add_table(rows=2, cols=2)
    for i, text in enumerate(["dose", "effect", "5 mg", "none"]):
        table.cell(i // 2, i % 2).text = text
    word.add_paragraph("The end.")
    stream = BytesIO()
    word.save(stream)
    return stream.getvalue()


def read_one(path: Path) -> tuple[list[Document], list[Problem]]:
    problems: list[Problem] = []
    return list(read(path, on_problem=problems.append)), problems


class TestDecode:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_unicode_is_read_without_a_note(self, encoding: str) -> None:
        assert decode("naïve 東京 😀".encode(encoding)) == ("naïve 東京 😀", "")

    def test_the_western_code_page_is_a_guess_and_noted(self) -> None:
        text, note = decode("naïve – “yes”".encode("cp1252"))
        assert text == "naïve – “yes”"
        assert "not UTF-8; read as Windows-1252" in note

    def test_a_few_broken_bytes_do_not_turn_utf_8_into_something_else(self) -> None:
        text, note = decode("наука \xff".encode().replace(b"\xc3\xbf", b"\xff") + "и жизнь".encode())
        assert text == "наука �и жизнь"
        assert "1 broken" in note

    @patient
    @given(st.binary(max_size=200))
    def test_any_bytes_are_decoded(self, data: bytes) -> None:
        text, _ = decode(data)
        assert isinstance(text, str)


class TestPlainText:
    def test_binary_data_under_a_texts_name_is_refused(self) -> None:
        with pytest.raises(DataError, match="binary data, or UTF-16 without"):
            read_text("zinc".encode("utf-16-le"))

    def test_a_stray_nul_byte_is_not_binary(self) -> None:
        assert read_text(b"a long enough text with \x00 one").text.endswith("one")

    @pytest.mark.parametrize("source", ["Zinc and colds\n==============\n\nText.", "======\n Zinc and colds\n======\nText.\n"])
    def test_restructured_texts_title_is_its_first_heading(self, source: str) -> None:
        assert read_rst(source.encode()).title == "Zinc and colds"
        assert read_rst(b"Just text.\nMore.").title == ""


class TestMarkdown:
    def test_the_marks_go_and_the_text_stays(self) -> None:
        source = (
            "# Zinc *and* colds\n\nIt [helps](http://x.y) a `bit`.\nSame paragraph.\n\n- one\n- two\n\n1. first\n2. second\n\n"
            "| dose | effect |\n|---|---|\n| 5 mg | none |\n\n```python\nx = 1\n```\n\n<div>raw <b>html</b></div>\n\n"
            "![chart](c.png)\n"
        )
        extract = read_markdown(source.encode())
        assert extract.title == "Zinc and colds"
        assert extract.text == (
            "Zinc and colds\n\nIt helps a bit.\nSame paragraph.\n\n- one\n- two\n\n1. first\n2. second\n\n"
            "dose | effect\n5 mg | none\n\nx = 1\n\nraw html\n\nchart"
        )

    def test_simple_front_matter_becomes_title_and_fields(self) -> None:
        head = 'title: "Zinc"\nyear: 2021\ndraft: false\nscore: 0.5\ntags: [a, b]\nwho:\n  - x\n  - y\ndeep:\n  k: v\n'
        source = f"---\n{head}---\n# Head\n"
        extract = read_markdown(source.encode())
        assert (extract.title, extract.text) == ("Zinc", "Head")
        assert extract.fields == {"year": 2021, "draft": False, "score": 0.5, "tags": ["a", "b"], "who": ["x", "y"]}

    def test_a_rule_at_the_start_is_no_front_matter(self) -> None:
        assert "A line of prose" in read_markdown(b"---\nA line of prose, no more.\n\n---\nText").text


class TestHtml:
    def test_the_readable_text_stays(self) -> None:
        page = (
            "<html><head><title> Zinc &amp;\n colds </title><style>p{}</style></head><body><nav>Home</nav><h1>Zinc</h1>"
            "<p>It <b>helps</b>\n a bit.<br>Next line.</p><script>alert(1)</script><!-- no --><ul><li>one<li>two</ul>"
            "<table><tr><th>dose<th>effect<tr><td>5 mg<td>none</table><pre>x = 1\n  y = 2</pre>tail</body></html>"
        )
        extract = read_html(page.encode())
        assert extract.title == "Zinc & colds"
        assert extract.text == (
            "Zinc\n\nIt helps a bit.\nNext line.\n\n- one\n- two\n\ndose | effect\n5 mg | none\n\nx = 1\n  y = 2\n\ntail"
        )

    def test_without_a_title_the_first_heading_is_it(self) -> None:
        assert read_html(b"<p>x</p><h1>Zinc</h1>").title == "Zinc"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    def test_the_encoding_is_found(self, encoding: str) -> None:
        declared = '<meta charset="windows-1252">' if encoding == "cp1252" else ""
        assert read_html(f"{declared}<p>naïve “x”".encode(encoding)).text == "naïve “x”"

    @pytest.mark.parametrize("page", ["<div>" * 200 + "deep", "<p>a\0b</p>", "<<<>>><p>x", "</p></div>x", "<p " * 2000 + ">x"])
    def test_malformed_pages_do_no_harm(self, page: str) -> None:
        assert len(read_html(page.encode()).text) >= 1

    def test_a_page_nested_too_deeply_is_noted(self) -> None:
        extract = read_html(b"<p>first</p>" + b"<div>" * 5000 + b"deep")
        assert extract.text == "first"
        assert extract.notes == ("is nested too deeply to be read whole",)

    def test_an_empty_page_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.html").write_text("  \n")
        (tmp_path / "b.html").write_text("<html><body><script>x</script></body></html>")
        found, problems = read_one(tmp_path)
        assert found == []
        assert [problem.reason for problem in problems] == ["holds no text", "holds no text"]


class TestPdf:
    def test_pages_become_paragraphs_and_broken_words_are_joined(self) -> None:
        extract = read_pdf(pdf_of("Zinc shortens a com-\nmon cold.", "Second page.", title="Zinc"))
        assert extract.title == "Zinc"
        assert extract.text == "Zinc shortens a common cold.\n\nSecond page."

    def test_a_word_processors_working_title_is_no_title(self) -> None:
        assert read_pdf(pdf_of("Text.", title="Microsoft Word - draft3.doc")).title == ""

    def test_a_truncated_file_is_skipped_and_named(self, tmp_path: Path) -> None:
        whole = pdf_of("Zinc shortens a cold.", "Second page.")
        (tmp_path / "a.pdf").write_bytes(whole[: len(whole) // 3])
        (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 nothing else")
        (tmp_path / "c.txt").write_text("Goes on.")
        found, problems = read_one(tmp_path)
        assert [document.id for document in found] == ["c.txt"]
        assert [(Path(problem.path).name, problem.kind) for problem in problems] == [("a.pdf", "skipped"), ("b.pdf", "skipped")]

    def test_an_encrypted_file_is_skipped_saying_so(self, tmp_path: Path) -> None:
        writer = pypdf.PdfWriter(clone_from=BytesIO(pdf_of("Secret.")))
        writer.encrypt("password", algorithm="RC4-128")
        writer.write(tmp_path / "a.pdf")
        found, [problem] = read_one(tmp_path / "a.pdf")
        assert found == []
        assert "encrypted" in problem.reason

    def test_a_scan_without_text_says_what_to_do(self) -> None:
        with pytest.raises(DataError, match="OCR"):
            read_pdf(pdf_of(""))


class TestDocx:
    def test_paragraphs_and_tables_come_in_order(self) -> None:
        extract = read_docx(docx_of())
        assert extract.title == "Zinc and colds"
        assert extract.text == "Zinc and colds\n\nZinc helps.\n\ndose | effect\n5 mg | none\n\nThe end."

    def test_a_zip_that_is_no_docx_is_skipped_and_named(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
            archive.writestr("hello.txt", "hello")
        (tmp_path / "b.docx").write_bytes(docx_of()[:2000])
        (tmp_path / "c.docx").write_bytes(b"not even a zip")
        found, problems = read_one(tmp_path)
        assert found == []
        assert [Path(problem.path).name for problem in problems] == ["a.docx", "b.docx", "c.docx"]
        assert all(problem.reason.startswith("is damaged, or not what its name says") for problem in problems)


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".pdf", ".docx", ".csv", ".jsonl", ".json", ".rst", ".gz", ".xyz"])
@patient
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=99).map(lambda data: b"\xff\xfe" + data)))
def test_random_bytes_never_raise(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"random{suffix}"
    path.write_bytes(data)
    found, problems = read_one(path)
    assert found or problems or suffix in (".csv", ".jsonl", ".json")


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".jsonl", ".csv"])
def test_a_document_of_ten_megabytes_is_read_in_seconds(tmp_path: Path, suffix: str) -> None:
    prose = "Zinc shortens a cold by a day or so. " * 270_000
    head = {".jsonl": '{"id": "a", "text": "', ".csv": "id,text\na,"}.get(suffix, "")
    tail = {".jsonl": '"}\n'}.get(suffix, "")
    (tmp_path / f"a{suffix}").write_text(head + prose + tail)
    started = time.perf_counter()
    [found], problems = read_one(tmp_path / f"a{suffix}")
    assert problems == []
    assert len(found.text.strip()) == len(prose) - 1
    assert time.perf_counter() - started < 20


def test_importing_the_readers_loads_no_parser() -> None:
    code = "import sys, twinrank.readers; print(sorted({'pypdf', 'docx', 'lxml', 'markdown_it'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
