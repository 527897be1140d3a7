"""Addresses of engines: read, shown without the password, and read again."""

from __future__ import annotations

import pytest

from twinrank.errors import CollectionError
from twinrank.index.engines import Address


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:xyzzy@localhost:5432/",
        "postgresql://me:xyzzy@localhost:5432/search/no-name",
        "postgresql://me:xyzzy@localhost:port/papers",
        "postgresql://me:xyz/zy@localhost/papers",
        "postgresql://me:1/xyzzy@localhost/9",
        "postgresql://me:12#xyzzy@localhost/papers",
        "postgresql://:xyzzy@localhost/9",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(CollectionError) as told:
        Address.parse(text)
    assert "zy" not in str(told.value)
    assert "localhost" in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        "milvus://localhost:19530/papers",
        "elasticsearch://[::1]:9200/papers?tls=true&ca=/etc/ca.pem",
        "postgresql://me%40home@localhost/search/papers",
        "milvus://localhost/papers?tenant=a%26b%20%C3%A9",
        "milvus+lite:///a%20folder/x%3Fy/papers",
    ],
)
def test_what_is_shown_reads_as_the_same_again(text: str) -> None:
    parsed = Address.parse(text)
    assert str(parsed) == text
    assert Address.parse(str(parsed)) == parsed


def test_a_password_is_kept_and_never_shown() -> None:
    parsed = Address.parse("postgresql://me:s%2Fcret@localhost/papers")
    assert parsed.password == "s/cret"
    assert "cret" not in f"{parsed} {parsed!r}"
