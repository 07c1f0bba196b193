"""Invalid images of a CSV: which they are, and how they are handled."""

import csv as csv_module
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blitz.augmentation import Augmentation
from blitz.cli.train import main as train_command
from blitz.data.arrays import FAULT
from blitz.data.csv.image_dataset import CsvImages
from blitz.data.plan import Split
from blitz.errors import DataError
from blitz.optim import Optim
from blitz.recipes.image_csv import ImageCsv
from blitz.run_files.directory import RunDirectory
from tests.pictures import coloured, picture
from tests.running import losses, result, train
from tests.test_image_csv import recipe


class Corrupted:
    """Pictures and a CSV that names them, with faults of every kind in random rows, and the lines they are on."""

    REASONS = (
        "there is no such file",
        "the file is empty",
        "expected an image",
        "the image is cut off or broken",
        "expected a file; it is a folder",
        "expected a label",
        "expected the path of an image",
        "gives the same image another label",
        "the row has 4 fields; the header has 3",
    )

    def __init__(self, folder: Path, *, seed: int, rows: int) -> None:
        folder.mkdir()
        rng = random.Random(seed)
        self.csv, self.faults = folder / "train.csv", dict[int, str]()
        text, line, self.good = "path,note,label\n", 2, 0
        for row in range(rows):
            colour = ("red", "green")[row % 2]
            file = picture(folder / f"{row}.{rng.choice(['jpg', 'png'])}", colour, seed=row)
            fault = rng.choice([*self.REASONS, *[""] * 12])
            name, label, extra = file.name, colour, ""
            if fault == "there is no such file":
                file.unlink()
            elif fault == "the file is empty":
                file.write_bytes(b"")
            elif fault == "expected an image":
                file.write_text("Not found\n" * 50)
            elif fault.startswith("the image is cut off"):
                file.write_bytes(file.read_bytes()[: rng.randrange(30, file.stat().st_size - 20)])
            elif fault.startswith("expected a file"):
                file.unlink()
                file.mkdir()
            elif fault == "expected a label":
                label = ""
            elif fault == "expected the path of an image":
                name = ""
            elif fault.startswith("the row has"):
                extra = ",more"
            note = rng.choice(["plain", '"two\nlines"', '"three\n\nlines, and ""quotes"""'])
            others = [(name, label, "")]
            if fault.startswith("gives the same"):
                others.append((name, "blue", ""))
            for path, said, _ in others:
                if fault:
                    self.faults[line] = fault
                text += f"{path},{note},{said}{extra}\n"
                line += 1 + note.count("\n")
            self.good += not fault
        self.csv.write_text(text)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_faults_of_every_kind_are_all_found_on_their_lines_and_none_is_invented(seed: int, tmp_path: Path) -> None:
    corrupted = Corrupted(tmp_path / "images", seed=seed, rows=120)
    assert set(corrupted.faults.values()) == set(Corrupted.REASONS)
    skipping = recipe(tmp_path, corrupted.csv, label_column=("label",), bad_rows="skip", max_bad_fraction=0.9)
    rows = skipping.fitted().dataset("train")
    found = {fault["line"]: fault["reason"] for fault in rows.left_out.faults.to_pylist()}
    assert found.keys() == corrupted.faults.keys()
    assert all(reason in found[line] for line, reason in corrupted.faults.items())
    # Rows whose files are bad stay where they are, and count for nothing.
    counted = int((rows.__getitems__(np.arange(len(rows)))[FAULT] == "").sum())
    assert counted == corrupted.good
    with pytest.raises(DataError, match=rf"{len(found)} of \d+ rows are bad: .*; and \d+ more faults; .*mend them"):
        recipe(tmp_path, corrupted.csv, label_column=("label",)).fitted()


def test_labels_that_training_lacks_are_bad_rows_of_validation(tmp_path: Path) -> None:
    train_csv, val_csv = coloured(tmp_path / "train", 12), coloured(tmp_path / "val", 6, "val.csv", seed=1)
    val_csv.write_text(val_csv.read_text().replace("blue", "purple"))
    with pytest.raises(DataError, match=r"val\.csv: 2 of 6 rows are bad: .*val\.csv:4: column 'colour' holds 'purple'"):
        recipe(tmp_path, train_csv, val_csv=str(val_csv)).fitted().dataset("val")


class BreaksLater(ImageCsv):
    """Two files break once they have been looked at: one is cut off, one goes."""

    def dataset(self, split: Split) -> CsvImages:
        rows = super().dataset(split)
        if split == "train":
            folder = Path(self.data.train_csv).parent
            broken, gone = folder / "0-006.jpg", folder / "0-011.png"
            broken.write_bytes(broken.read_bytes()[:500])
            gone.unlink(missing_ok=True)
        return rows


def breaks_later(folder: Path, **settings: Any) -> BreaksLater:
    csv = coloured(folder / "images", 30)
    plain = recipe(folder, csv, augmentation=Augmentation(False, 1.0), optim=Optim(name="sgd", lr=0.01), **settings)
    return BreaksLater(**{name: getattr(plain, name) for name in plain.__dataclass_fields__})


def found_broken(run: RunDirectory) -> set[tuple[str, str]]:
    rows = csv_module.DictReader(run.read("bad_rows.csv").decode().splitlines())
    return {(row["line"], row["value"]) for row in rows}


BROKEN = {("8", "0-006.jpg"), ("13", "0-011.png")}
SKIPPING = {"bad_rows": "skip", "max_bad_fraction": 0.1, "epochs": 2}


def test_a_file_that_breaks_while_training_counts_for_nothing_and_is_written_down(tmp_path: Path) -> None:
    run = train(breaks_later(tmp_path, **SKIPPING), tmp_path / "run")
    assert len(losses(run)) == 8
    assert found_broken(run) == BROKEN
    # Those that are whole trained as if the others had never been there: the mean is over 6 to 8 rows of 8.
    assert all(np.isfinite(loss) for loss in losses(run))


def test_it_is_an_error_where_bad_rows_are_one_or_are_too_many(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train\.csv:\d+: column 'file' holds '0-0(06.jpg|11.png)'; .*--data.bad-rows skip"
    ):
        train(breaks_later(tmp_path / "fail"), tmp_path / "run")
    with pytest.raises(DataError, match=r"2 of 30 rows turned out to be invalid, .*--data.max-bad-fraction 0.05"):
        train(breaks_later(tmp_path / "many", bad_rows="skip", max_bad_fraction=0.05), tmp_path / "run")


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_ranks_stay_in_step_when_files_break_and_the_same_rows_count(tmp_path: Path) -> None:
    alone = train(breaks_later(tmp_path / "alone", **SKIPPING, val_fraction=0.2), tmp_path / "alone" / "run")
    together = train(
        breaks_later(tmp_path / "together", **SKIPPING, val_fraction=0.2), tmp_path / "together" / "run", num_workers=2
    )
    assert result(together)["rows_digest"] == result(alone)["rows_digest"]
    assert found_broken(together) == found_broken(alone) <= BROKEN
    assert len(losses(together)) == len(losses(alone)) == 6


def test_a_batch_of_broken_files_alone_changes_nothing_and_stops_nothing(tmp_path: Path) -> None:
    class AllBreak(BreaksLater):
        def dataset(self, split: Split) -> CsvImages:
            rows = super().dataset(split)
            for file in Path(self.data.train_csv).parent.glob("0-*"):
                file.write_bytes(b"")
            return rows

    settings = {**SKIPPING, "max_bad_fraction": 1.0}
    plain = breaks_later(tmp_path, **settings)
    broken = AllBreak(**{name: getattr(plain, name) for name in plain.__dataclass_fields__})
    run = train(broken, tmp_path / "run")
    assert losses(run) == []
    assert result(run)["steps"] == 8
    assert result(run)["rows_digest"] == "0" * 16


def test_bad_rows_are_listed_in_the_run_once_however_often_it_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = coloured(tmp_path / "images", 12)
    csv.write_text(csv.read_text() + "nosuch.jpg,red\n")
    flags = f"--data.train-csv {csv} --data.size 32 --data.bad-rows skip --data.max-bad-fraction 0.1 --epochs 1"
    flags += f" --optim.schedule constant --storage {tmp_path} --run one --data.cache {tmp_path / 'cache'}"
    train_command(["image_csv", *flags.split()])
    printed = capsys.readouterr().out
    assert f"train.csv: 1 bad row is left out, listed in {tmp_path}/one/bad_rows.csv" in printed
    train_command(["image_csv", *flags.replace("--epochs 1", "--epochs 2").split()])
    listed = (tmp_path / "one" / "bad_rows.csv").read_text().splitlines()
    assert listed == [
        '"csv","line","column","value","reason"',
        f'"{csv}",14,"file","nosuch.jpg","there is no such file"',
    ]


def test_a_file_that_is_lost_between_two_starts_changes_neither_the_order_nor_what_is_held_out(tmp_path: Path) -> None:
    csv = coloured(tmp_path / "images", 40)
    lenient = recipe(tmp_path, csv, val_fraction=0.25, bad_rows="skip", max_bad_fraction=0.1)

    def lines(split: Split) -> list[int]:
        rows = lenient.fitted().dataset(split)
        return [int(line) for line in rows.table.lines(np.arange(len(rows)))]

    before = lines("train"), lines("val")
    (tmp_path / "images" / "0-000.jpg").unlink()
    assert (lines("train"), lines("val")) == before
    assert len({*before[0], *before[1]}) == 40


def test_bytes_behind_an_image_and_unusual_kinds_are_no_faults(tmp_path: Path) -> None:
    csv = coloured(tmp_path / "images", 4)
    folder = csv.parent
    phone = folder / "0-000.jpg"
    phone.write_bytes(phone.read_bytes() + bytes(100_000))
    (folder / "scan.tif").write_bytes(b"")
    picture(folder / "scan.tif", "red", seed=9)
    picture(folder / "old.bmp", "blue", seed=10)
    csv.write_text(csv.read_text() + "scan.tif,red\nold.bmp,blue\n")
    assert len(recipe(tmp_path, csv).fitted().dataset("train").left_out) == 0
