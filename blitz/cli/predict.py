"""Predict for every row of a CSV, or every line of a text, with a checkpoint of a run.

    blitz predict RUN INPUT.csv OUTPUT.csv [flags]
    blitz predict RUN INPUT.txt OUTPUT.txt [flags]
    echo 'A man rides a bike.' | blitz predict RUN - [flags]

RUN is the run directory that blitz train printed, a path or a URI; a name alone is looked for in runs/. OUTPUT.csv
holds the rows of INPUT.csv in their order with columns appended: the prediction, probabilities for classes, and
`error`, which explains why a row has no prediction. The same command again resumes a killed one.

A recipe that translates also takes text, one sentence a line: a file whose name ends in .txt, or standard input with -.
It writes a line for each, empty for an empty one; without OUTPUT, or with -, to standard output.
"""

from blitz.api.predict_rows import PredictSettings, predict_csv, predict_lines
from blitz.cli.stored_run import parse_for_run
from blitz.data.csv.prediction_csv import ERROR
from blitz.errors import require

PROG = "blitz predict"


def main(words: list[str]) -> None:
    """The command `predict`."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nFlags: those of `{PROG} RUN INPUT.csv OUTPUT.csv --help`, which depend on the run's recipe.")
        return
    files = [word for word in words[:3] if word == "-" or not word.startswith("-")]
    if len(files) == 2 and is_text(files[1]):
        words, files = [*files, "-", *words[2:]], [*files, "-"]
    require(
        len(files) == 3,
        f"name a run, a CSV and a file to write first: {PROG} RUN INPUT.csv OUTPUT.csv [flags]",
    )
    directory, settings = parse_for_run(PredictSettings, words, positions=3, prog=PROG, description=__doc__ or "")
    _, source, target = files
    if is_text(source):
        predict_lines(directory, source, target, settings)
        return
    rows, errors = predict_csv(directory, source, target, settings)
    without = f", {errors:,} without a prediction: see the column '{ERROR}'" if errors else ""
    print(f"{target}: {rows:,} rows{without}")


def is_text(source: str) -> bool:
    """Whether an input is text rather than a CSV."""
    return source == "-" or source.lower().endswith(".txt")
