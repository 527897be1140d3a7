"""Queries, judgments and whole data sets: read as they stand, or refused with the line and what was expected there."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from twinrank.errors import DataError
from twinrank.readers import read_dataset, read_qrels, read_queries


def written(folder: Path, content: str | bytes, name: str = "file") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def dataset_in(folder: Path) -> Path:
    written(folder, '{"_id": "d1", "title": "Zinc", "text": "Helps."}\n{"_id": "d2", "text": "No."}\n', "corpus.jsonl")
    written(folder, '{"_id": "q1", "text": "zinc?"}\n{"_id": "q2", "text": "other"}\n', "queries.jsonl")
    written(folder, "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n", "qrels/test.tsv")
    written(folder, "query-id\tcorpus-id\tscore\nq2\td2\t1\n", "qrels/train.tsv")
    return folder


class TestQueries:
    @pytest.mark.parametrize(
        "content",
        [
            '{"_id": "1", "text": "does zinc help?", "metadata": {}}\n\n{"_id": 2, "text": "colds"}\n',
            "1\tdoes zinc help?\n2\tcolds\n",
            "qid\tquery\n1\tdoes zinc help?\n2\tcolds\n",
            "<top>\n<num> Number: 1\n<title> does zinc\nhelp?\n<desc> Long.\n</top><top><num>2<title>colds</title></top>",
        ],
    )
    def test_beir_tabs_and_topics_give_the_same(self, tmp_path: Path, content: str) -> None:
        assert read_queries(written(tmp_path, content)) == {"1": "does zinc help?", "2": "colds"}

    def test_a_folder_means_its_queries_file_and_packed_ones_are_unpacked(self, tmp_path: Path) -> None:
        written(tmp_path, gzip.compress(b'{"_id": "1", "text": "zinc"}'), "queries.jsonl.gz")
        assert read_queries(tmp_path) == {"1": "zinc"}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}', r"line 2: the query id '1' comes a second time"),
            ('{"_id": "1", "text": "a"}\n{"_id": ', r"line 2: not JSON"),
            ('{"_id": "1", "text": ["a"]}', r"line 1: expected an object with '_id' and 'text'"),
            ('{"text": "a"}', r"line 1: expected an object with '_id' and 'text'"),
            ('{"_id": "1", "text": " "}', r"line 1: the query '1' has no text"),
            ("1\ta\n2 b", r"line 2: expected an id, a tab"),
            ("\n<top>\n<title> a\n</top>", r"line 2: a <top> needs a <num>"),
            ("", "holds no queries"),
            (b"1\tna\xefve", "is not UTF-8"),
        ],
    )
    def test_what_is_malformed_is_refused_with_its_line(self, tmp_path: Path, content: str | bytes, said: str) -> None:
        with pytest.raises(DataError, match=said):
            read_queries(written(tmp_path, content))

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read"):
            read_queries(tmp_path / "gone.jsonl")
        with pytest.raises(DataError, match=r"has no queries\.jsonl"):
            read_queries(tmp_path)


class TestQrels:
    @pytest.mark.parametrize(
        "content",
        [
            "query-id\tcorpus-id\tscore\nq1\td 1\t2\nq1\td2\t0\nq2\td1\t-1\n",
            "q1\td 1\t2\r\nq1\td2\t0\r\nq2\td1\t-1\r\n",
            "q1\td 1\t2\nq1\td 1\t2\nq1\td2\t0\n\nq2\td1\t-1",
        ],
    )
    def test_beirs_layout_is_read_with_and_without_a_header(self, tmp_path: Path, content: str) -> None:
        assert read_qrels(written(tmp_path, content)) == {"q1": {"d 1": 2, "d2": 0}, "q2": {"d1": -1}}

    def test_trecs_layout_is_read(self, tmp_path: Path) -> None:
        assert read_qrels(written(tmp_path, "301 0 FT-1 1\n301\t0\tFT-2\t0\n")) == {"301": {"FT-1": 1, "FT-2": 0}}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("q1\td1\t1\nq1\td2\n", "line 2: expected 3 columns or TREC's 4, got 2"),
            ("q1 0 d1 1 x\n", "line 1: expected 3 columns or TREC's 4, got 5"),
            ("q1\td1\t1\nq1\td2\t0.5\n", "line 2: the grade '0.5' is not a whole number"),
            ("q1\td1\t1\nq1\td2\thigh\n", "line 2: the grade 'high'"),
            ("q1\td1\t1\nq1\td1\t2\n", "line 2: 'd1' was judged otherwise for 'q1' before"),
            ("query-id\tcorpus-id\tscore\n", "holds no judgments"),
        ],
    )
    def test_what_is_malformed_is_refused_with_its_line(self, tmp_path: Path, content: str, said: str) -> None:
        with pytest.raises(DataError, match=said):
            read_qrels(written(tmp_path, content))


class TestDataset:
    def test_a_beir_folder_is_read(self, tmp_path: Path) -> None:
        dataset = read_dataset(dataset_in(tmp_path / "toy"))
        assert (dataset.name, dataset.split) == ("toy", "test")
        assert dataset.queries == {"q1": "zinc?"}
        assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}}
        assert [document.id for document in dataset.documents()] == ["d1", "d2"]
        assert read_dataset(tmp_path / "toy", split="train").queries == {"q2": "other"}

    def test_an_unknown_split_names_those_that_exist(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="'dev': its qrels folder has test, train"):
            read_dataset(dataset_in(tmp_path), split="dev")

    def test_a_judged_query_without_text_is_refused(self, tmp_path: Path) -> None:
        written(dataset_in(tmp_path), "q1\td1\t1\nq9\td1\t1\n", "qrels/test.tsv")
        with pytest.raises(DataError, match="1 queries of the split 'test' have no text, the first is 'q9'"):
            read_dataset(tmp_path)

    def test_a_folder_without_a_corpus_is_refused(self, tmp_path: Path) -> None:
        (dataset_in(tmp_path) / "corpus.jsonl").unlink()
        with pytest.raises(DataError, match=r"has no corpus\.jsonl"):
            read_dataset(tmp_path)
        with pytest.raises(DataError, match="is no folder"):
            read_dataset(tmp_path / "gone")

    @pytest.mark.data
    def test_scifact_is_what_its_readme_says(self, shared_data: Path) -> None:
        dataset = read_dataset(shared_data / "scifact")
        assert len(dataset.queries) == len(dataset.qrels) == 300
        assert sum(1 for _ in dataset.documents()) == 5183
