"""Sentences as tokens and back, and where they are read from."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blitz.data.text.pairs import fit_pairs, lines_to_translate, pair_rows
from blitz.data.text.sentences import PairData, each_pair, sentences_of, split_lines
from blitz.data.text.vocabulary import BEGIN, END, PAD, SMALLEST, Vocabulary
from blitz.errors import DataError, UserError

TEXTS = ["A man rides a bike.", "Two men ride two bikes.", "Ein Mann fährt Fahrrad.", "Zwei Männer fahren Rad."] * 4
LONG = "".join(chr(48 + index) for index in range(70))
HARD = [
    "",
    " ",
    "  two  blanks ",
    "猫が好き",
    "naïve Straße 🚲",
    "<pad> <s>",
    "tab\tand\rreturn",
    "Σ≠ß",
    "e\u0301",
    "\x00",
]


def files(folder: Path, sources: list[str], targets: list[str], name: str = "train") -> str:
    (folder / f"{name}.en").write_text("".join(f"{line}\n" for line in sources))
    (folder / f"{name}.de.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in targets).encode()))
    return str(folder)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.learned(TEXTS, 300)


def test_every_text_comes_back_as_it_was_also_of_characters_that_were_never_seen(vocabulary: Vocabulary) -> None:
    assert vocabulary.decode(vocabulary.encode([*TEXTS, *HARD])) == [*TEXTS, *HARD]
    assert max(map(max, vocabulary.encode(TEXTS))) < len(vocabulary)
    assert min(map(min, vocabulary.encode(TEXTS))) >= 3


def test_frequent_words_are_one_token_and_the_vocabulary_is_as_large_as_it_may_be(vocabulary: Vocabulary) -> None:
    assert len(Vocabulary(())) == SMALLEST == 259
    assert len(vocabulary) == 300
    (row,) = vocabulary.encode(["A man fährt"])
    assert len(row) < len("A man fährt")
    assert "".join(vocabulary.pieces([*row, END])) == " A man fährt⏎"


def test_the_same_text_gives_the_same_vocabulary_in_another_process_with_other_threads(vocabulary: Vocabulary) -> None:
    program = (
        "from blitz.data.text.vocabulary import Vocabulary; import sys; "
        f"sys.stdout.buffer.write(repr(Vocabulary.learned({TEXTS!r}, 300).merges).encode())"
    )
    for threads in ("1", "3"):
        environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "RAYON_NUM_THREADS": threads}
        found = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True)
        assert found.stdout.decode() == repr(vocabulary.merges)


def test_rows_are_equally_wide_and_a_longer_sentence_is_cut(vocabulary: Vocabulary) -> None:
    rows = vocabulary.padded(["A man", "", TEXTS[1]], 6)
    assert rows.shape == (3, 6)
    whole = vocabulary.encode([TEXTS[1]])[0]
    assert len(whole) > 6
    assert rows[2].tolist() == whole[:6]
    assert rows[1].tolist() == [END, *[PAD] * 5]
    assert BEGIN not in rows
    assert vocabulary.decode([[*rows[0].tolist(), *whole]]) == ["A man"]


def test_files_and_a_csv_of_the_same_pairs_give_the_same_rows(tmp_path: Path) -> None:
    sources, targets = [f"{n} cats, or so" for n in range(20)], [f'{n} "Katzen"; etwa' for n in range(20)]
    root = PairData(root=files(tmp_path, sources, targets), vocabulary=300, max_tokens=16)
    files(tmp_path, sources[:3], targets[:3], "val")
    cells = "".join(f'x,"{d.replace(chr(34), chr(34) * 2)}","{e}"\n' for e, d in zip(sources, targets, strict=True))
    (tmp_path / "pairs.csv").write_text(f"note,de,en\n{cells}")
    csv = PairData(train_csv=f"{tmp_path}/pairs.csv", vocabulary=300, max_tokens=16, cache=f"{tmp_path}/cache")
    fits = [fit_pairs(data, 0) for data in (root, csv)]
    assert fits[0].merges == fits[1].merges
    assert fits[0].target_tokens == fits[1].target_tokens > 1
    columns = [
        pair_rows(data, fit, "train", 0).__getitems__(np.array([7, 3]))
        for data, fit in zip((root, csv), fits, strict=True)
    ]
    assert columns[0].keys() == {"source", "target"}
    for name, column in columns[0].items():
        assert column.dtype == np.int32
        assert column.tolist() == columns[1][name].tolist()
    (reference, *_) = pair_rows(root, fits[0], "val", 0).__getitems__(np.arange(3))["reference"]
    assert bytes(reference).rstrip(b"\0").decode() == targets[0]


def test_pairs_with_an_empty_line_are_left_out_and_long_ones_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few: Any = {"max_tokens": 9, "vocabulary": 300}
    data = PairData(root=files(tmp_path, ["one", "", "two", LONG], ["eins", "?", " ", "y"]), **few)
    assert [*each_pair(sentences_of(data, "train", 0))] == [("one", "eins"), (LONG, "y")]
    fit_pairs(data, 0)
    said = capsys.readouterr().out
    assert "2 pairs of lines, of which one is empty, are left out" in said
    assert "1 of 2 pairs are longer than --data.max-tokens 9, and are cut" in said


def test_lines_end_with_line_feeds_alone() -> None:
    assert split_lines("one\u2028still\r\n\ntwo\x0bstill\n") == ["one\u2028still", "", "two\x0bstill"]
    assert split_lines("") == []
    assert split_lines("no end") == ["no end"]


def test_sentences_to_translate_have_no_target(vocabulary: Vocabulary, tmp_path: Path) -> None:
    data = PairData(root=files(tmp_path, TEXTS, TEXTS), max_tokens=30)
    rows = lines_to_translate(data, fit_pairs(data, 0), ["猫", TEXTS[0]])
    assert rows.__getitems__(np.arange(2)).keys() == {"source"}
    assert rows.vocabulary.decode(rows.__getitems__(np.arange(2))["source"].tolist()) == ["猫", TEXTS[0]]


def test_what_cannot_be_read_is_reported_in_one_line(tmp_path: Path) -> None:
    root = files(tmp_path, ["one", "two"], ["eins"])
    (tmp_path / "bad.en.gz").write_bytes(b"no gzip")
    (tmp_path / "bad.de").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "pairs.csv").write_text("en,fr\none,un\n,deux\n")

    def read(split: Any = "train", **settings: Any) -> None:
        sentences_of(PairData(**settings, cache=f"{tmp_path}/cache"), split, 0)

    with pytest.raises(DataError, match=r"train\.en has 2 lines and train\.de 1; each line of one must be"):
        read(root=root)
    with pytest.raises(DataError, match=r"has neither val\.en nor val\.en\.gz; name its folder with --data\.root"):
        read("val", root=root)
    with pytest.raises(DataError, match=r"bad\.en\.gz cannot be unpacked"):
        read("test", root=root, test="bad")
    with pytest.raises(DataError, match=r"bad\.de is not encoded in UTF-8"):
        read("test", root=root, test="bad", source="de", target="en")
    with pytest.raises(UserError, match=r"name the sentences to train on: --data\.root DIR with train\.en"):
        read()
    with pytest.raises(UserError, match=r"--data\.root has files of its own"):
        read(root=root, train_csv="pairs.csv")
    with pytest.raises(DataError, match=r"pairs\.csv has no column 'de'; it has: en, fr"):
        read(train_csv=f"{tmp_path}/pairs.csv")
    with pytest.raises(DataError, match=r"pairs\.csv: 1 of 2 rows is bad: .*pairs\.csv:3: column 'en' is empty"):
        read(train_csv=f"{tmp_path}/pairs.csv", target="fr")
    with pytest.raises(UserError, match=r"name the CSV to test on with --data\.test-csv FILE"):
        read("test", train_csv=f"{tmp_path}/pairs.csv", target="fr")
    with pytest.raises(UserError, match=r"--data\.source and --data\.target are both en"):
        read(root=root, target="en")
