"""One file that is one document (plain text, markdown, HTML, PDF, docx) → its title and its readable text."""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinrank.errors import DataError
from twinrank.types import Scalar

if TYPE_CHECKING:
    from markdown_it.token import Token


@dataclass(frozen=True, slots=True)
class Extract:
    """What was found in a file."""

    text: str
    title: str = ""
    fields: Mapping[str, Scalar | list[Scalar]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What the user should know, though the file could be read."""


# -------------------------------------------------------------------------------------------------- bytes → text

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins like it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def byte_order_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark at the start of `head` tells; None without one."""
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)


def looks_binary(head: bytes) -> bool:
    """Whether the start of a file holds what text does not: control characters, unless a byte order mark explains them."""
    return byte_order_encoding(head) is None and _CONTROL_BYTES.search(head) is not None


def decode(data: bytes) -> tuple[str, str]:
    """A text, by its byte order mark, else as UTF-8, else as Windows' Western code page; and a note where that is a guess.

    >>> decode("naïve".encode("cp1252"))
    ('naïve', 'is not UTF-8; read as Windows-1252: convert it if that is wrong')
    """
    encoding = byte_order_encoding(data)
    try:
        return data.decode(encoding or "utf-8"), ""
    except UnicodeDecodeError:
        pass
    text = data.decode(encoding or "utf-8", "replace")
    wrong = text.count("�")
    right = len(text) - len(text.encode("ascii", "ignore")) - wrong  # characters of several bytes that were sound
    if encoding or right > wrong:
        return text, f"is not quite UTF-8; {wrong:,} broken characters were replaced"
    try:
        return data.decode("cp1252"), "is not UTF-8; read as Windows-1252: convert it if that is wrong"
    except UnicodeDecodeError:  # five bytes have no meaning in cp1252; in Latin-1 each has
        return data.decode("latin-1"), "is not UTF-8; read as Latin-1: convert it if that is wrong"


# ------------------------------------------------------------------------------------------------ kinds of files

_UNDERLINED = re.compile(r"\s*(?:([=\-~^\"'#*+`:._])\1{2,}\n)?[ \t]*(\S[^\n]*)\n([=\-~^\"'#*+`:._])\3{2,}[ \t]*(?:\n|$)")


def read_text(data: bytes) -> Extract:
    text, note = decode(data)
    if text.count("\0") * 10 > len(text):
        raise DataError("holds binary data, or UTF-16 without a byte order mark")
    return Extract(text, notes=(note,) if note else ())


def read_rst(data: bytes) -> Extract:
    extract = read_text(data)
    heading = _UNDERLINED.match(extract.text)
    return Extract(extract.text, heading[2].strip() if heading else "", notes=extract.notes)


def read_markdown(data: bytes) -> Extract:
    """Markdown's text without its marks; the title from the front matter, else the first heading."""
    from markdown_it import MarkdownIt

    source, note = decode(data)
    fields, body = _front_matter(source.replace("\r\n", "\n"))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    headings = (following for token, following in pairwise(tokens) if token.type == "heading_open")
    heading = next((_inline_text(token) for token in headings), "")
    title = fields.pop("title", None)
    return Extract(_markdown_text(tokens), str(title or heading), fields, (note,) if note else ())


def _front_matter(source: str) -> tuple[dict[str, Scalar | list[Scalar]], str]:
    """The simple `key: value` lines of a YAML head and the text behind it; what is nested there is left out."""
    if not source.startswith("---\n"):
        return {}, source
    head, fence, body = source[4:].partition("\n---\n")
    lines = head.split("\n")
    if not fence or not all(re.match(r"[\w.-]+[ \t]*:|\s|#|-|$", line) for line in lines):
        return {}, source
    fields: dict[str, Scalar | list[Scalar]] = {}
    key = ""
    for line in lines:
        pair = re.fullmatch(r"([A-Za-z_][\w.-]*)[ \t]*:(?:[ \t]+(.*))?", line, re.ASCII)
        if pair:
            key, value = pair[1], (pair[2] or "").strip()
            if re.fullmatch(r"\[[^\[\]{}]*\]", value):
                fields[key] = [_typed(item) for item in value[1:-1].split(",") if item.strip()]
            elif value and value[0] not in "{[&*|>!":
                fields[key] = _typed(value)
        elif line.startswith(("- ", "  - ")) and key and not line.rstrip().endswith(":"):
            former = fields.setdefault(key, [])
            if isinstance(former, list):
                former.append(_typed(line.strip()[2:]))
    return fields, body


def _typed(value: str) -> Scalar:
    value = value.strip()
    if value[:1] in "\"'" and value[-1:] == value[:1] and len(value) > 1:
        return value[1:-1]
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value.lower() in ("null", "~", ""):
        return None
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", value, re.ASCII):
        return int(value)
    return float(value) if re.fullmatch(r"-?\d{1,15}\.\d{1,15}", value, re.ASCII) else value


def _markdown_text(tokens: list[Token]) -> str:
    parts: list[str] = []
    prefix = ""
    in_row = tight = False
    for token in tokens:
        if token.type in ("bullet_list_open", "ordered_list_open", "table_open") and token.level == 0:
            parts.append("\n")
        if token.type == "list_item_open":
            prefix = f"{token.info}{token.markup} " if token.info else "- "
        elif token.type in ("tr_open", "tr_close"):
            in_row = token.type == "tr_open"
            parts.append("\n" if in_row else "")
        elif token.type in ("td_close", "th_close"):
            parts.append(" | ")
        elif token.type == "paragraph_open":
            tight = token.hidden  # an item of a list without blank lines
        content = _block_text(token)
        if content:
            separator = "" if in_row else "\n" if tight else "\n\n"
            parts.append(f"{separator}{prefix}{content}")
            prefix, tight = "", False
    return "\n".join(line.rstrip(" |") for line in "".join(parts).strip().split("\n"))


def _block_text(token: Token) -> str:
    if token.type == "inline":
        return _inline_text(token)
    if token.type in ("fence", "code_block"):
        return token.content.rstrip()
    return _without_tags(token.content).strip() if token.type == "html_block" else ""


def _inline_text(token: Token) -> str:
    parts = []
    for child in token.children or ():
        if child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif child.type == "image":
            parts.append(_inline_text(child))
        elif child.type in ("text", "code_inline"):
            parts.append(child.content)
    return "".join(parts)


def _without_tags(markup: str) -> str:
    return re.sub(r"<[^<>]*>", "", re.sub(r"<!--.*?(?:-->|$)", "", markup, flags=re.DOTALL))


_DROPPED = frozenset("script style noscript template nav svg iframe object select button head".split())  # noqa: SIM905
_PARAGRAPHS = frozenset(
    "p h1 h2 h3 h4 h5 h6 pre blockquote ul ol dl table section article header footer aside main figure form hr body".split()  # noqa: SIM905
)
_LINES = frozenset("li tr dt dd div option caption figcaption address legend summary".split())  # noqa: SIM905


def read_html(data: bytes) -> Extract:
    """The readable text of a page, without scripts, styles and navigation; the title from its head, else its first heading."""
    from lxml import etree, html

    encoding = byte_order_encoding(data)
    if not encoding:
        data = data.replace(b"\0", b" ")  # where libxml2 would stop
    if encoding and encoding != "utf-8-sig":
        data, encoding = data.decode(encoding, "replace").encode("utf-8", "replace"), "utf-8"
    elif encoding or _is_utf8(data):
        encoding = "utf-8"  # else lxml follows the page's own word
    parser = html.HTMLParser(encoding=encoding, huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        page = html.document_fromstring(data, parser=parser)
    except etree.ParserError as error:
        raise DataError("holds no text") from error
    named = [page.find(".//title"), page.find(".//h1")]
    titles = (" ".join(" ".join(element.itertext()).split()) for element in named if element is not None)
    deep = any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log)
    notes = ("is nested too deeply to be read whole",) if deep else ()
    return Extract(_page_text(page), next(filter(None, titles), ""), notes=notes)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _page_text(page: Any) -> str:
    from lxml import etree

    parts = ["\n"]
    verbatim = 0

    def add(text: str | None) -> None:
        if text and not verbatim:
            text = re.sub(r"\s+", " ", text)
            text = text.lstrip() if parts[-1][-1:] in ("\n", " ") else text
        if text:
            parts.append(text)

    def separate(tag: str) -> None:
        if tag in _PARAGRAPHS:
            parts.append("\n\n")
        elif tag in _LINES and not parts[-1].endswith("\n"):
            parts.append("\n")

    walk = etree.iterwalk(page, events=("start", "end"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        separate(tag)
        verbatim += (tag == "pre") * (1 if event == "start" else -1)
        if event == "end":
            parts += ["\n"] if tag == "br" else [" | "] if tag in ("td", "th") else []
            add(element.tail)
        elif tag in _DROPPED:
            walk.skip_subtree()
        else:
            parts += ["- "] if tag == "li" else []
            add(element.text)
    lines = "".join(parts).split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip(" |\t") for line in lines)).strip()


_WORKING_TITLE = re.compile(r"microsoft word|untitled|.*\.(?:docx?|dvi|tex|indd|pdf|qxd|rtf)$", re.IGNORECASE)
_BROKEN_WORD = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")


def read_pdf(data: bytes) -> Extract:
    """The text of a PDF file, pages as paragraphs; words broken at line ends are joined."""
    import pypdf

    with _silenced("pypdf"):
        reader = pypdf.PdfReader(BytesIO(data))
        if reader.is_encrypted and not _opens_without_password(reader):
            raise DataError("is encrypted; save a copy without a password")
        pages, notes = [], []
        for number, page in enumerate(reader.pages, start=1):
            try:
                pages.append(page.extract_text().strip())
            except Exception as error:  # pypdf raises whatever a damaged page leads it to
                notes.append(f"page {number} cannot be read ({described(error)})")
        title = str((reader.metadata.title if reader.metadata else "") or "").strip()
    text = _BROKEN_WORD.sub("", "\n\n".join(page for page in pages if page))
    if not text.strip():
        raise DataError("; ".join(notes) or "holds no text; scanned pages need text recognition (OCR) first")
    return Extract(text, "" if _WORKING_TITLE.match(title) else title, notes=tuple(notes))


def _opens_without_password(reader: Any) -> bool:
    try:
        return bool(reader.decrypt(""))
    except Exception:  # AES needs a package that is not required here, broken keys raise anything
        return False


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Keep a library's log, which it writes to standard error, quiet: what matters reaches the user as a Problem."""
    logger = logging.getLogger(name)
    former = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(former)


def described(error: Exception) -> str:
    """An exception in one short line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def read_docx(data: bytes) -> Extract:
    """The paragraphs and tables of a Word file in their order."""
    import docx
    from docx.table import Table

    word = docx.Document(BytesIO(data))
    blocks, title = [], (word.core_properties.title or "").strip()
    for block in word.iter_inner_content():
        if isinstance(block, Table):
            blocks.append("\n".join(_row_text(row) for row in block.rows))
            continue
        blocks.append(block.text)
        style = (block.style.name or "") if block.style is not None else ""
        title = title or (block.text.strip() if style in ("Title", "Heading 1") else "")
    return Extract("\n\n".join(block for block in blocks if block.strip()), title)


def _row_text(row: Any) -> str:
    cells: list[Any] = []
    for cell in row.cells:  # a merged cell comes once for each column
        if not cells or cells[-1]._tc is not cell._tc:
            cells.append(cell)
    return " | ".join(" ".join(cell.text.split()) for cell in cells)


def reader_of(path: Path) -> Callable[[bytes], Extract] | None:
    """The reader for a file's name; None where its contents must tell."""
    return _READERS.get(path.suffix.lower())


_READERS: dict[str, Callable[[bytes], Extract]] = {
    **dict.fromkeys([".txt", ".text", ".log"], read_text),
    ".rst": read_rst,
    **dict.fromkeys([".md", ".markdown", ".mdown"], read_markdown),
    **dict.fromkeys([".html", ".htm", ".xhtml"], read_html),
    ".pdf": read_pdf,
    ".docx": read_docx,
}
