"""blitz report, and the reports that blitz train writes."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blitz.cli import command_line, report, train
from blitz.report import page
from blitz.run_files.directory import RunDirectory

Call = Callable[..., tuple[int, str, str]]
DIGITS = [
    "digits",
    "--epochs",
    "1",
    "--max-train-rows",
    "64",
    "--log-every-steps",
    "1",
    "--scale.num-workers",
    "0",
    "--scale.use-gpu",
    "no",
]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Runs blitz report with some words in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["report", *words])
        with pytest.raises(SystemExit) as leaving:
            command_line.run(report.main, sys.argv[1:])
        printed = capsys.readouterr()
        return int(leaving.value.code or 0), printed.out, printed.err

    return run


def test_a_run_ends_with_its_report_a_curve_and_what_its_time_went_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main([*DIGITS, "--storage", str(tmp_path), "--run", "one"])
    printed = capsys.readouterr().out
    assert f"report: {tmp_path}/one/report.html\n" in printed
    assert "train/loss  " in printed
    assert "% compute, " in printed
    text = (tmp_path / "one" / "report.html").read_text()
    assert "blitz train digits --epochs 1 --max-train-rows 64" in text
    shown, _, folded = text.partition('id="settings"')[2].partition("settings that are off</summary>")
    assert "<dt>max_train_rows</dt><dd>64</dd>" in shown
    assert "<dt>max_steps</dt>" not in shown
    assert "<dt>max_steps</dt>" in folded


def test_a_run_may_end_without_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*DIGITS, "--storage", str(tmp_path), "--run", "one", "--no-report"])
    assert "report:" not in capsys.readouterr().out
    assert not (tmp_path / "one" / "report.html").exists()


def test_a_report_that_cannot_be_made_does_not_fail_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one" / "report.html").mkdir(parents=True)
    train.main([*DIGITS, "--storage", str(tmp_path), "--run", "one"])
    assert "no report was written (" in capsys.readouterr().out
    assert (tmp_path / "one" / "result.json").exists()


def test_pictures_are_written_beside_the_page_and_names_alone_are_found(call: Call, tmp_path: Path) -> None:
    train.main([*DIGITS, "--run", "one", "--no-report"])
    code, out, _ = call("one", "--png")
    assert code == 0
    names = [Path(line).relative_to(tmp_path / "runs" / "one") for line in out.splitlines() if line[0] == "/"]
    assert names[0] == Path("report.html")
    assert {"loss.png", "confusion.png", "by-class.png"} <= {name.name for name in names[1:]}
    for name in names[1:]:
        assert (tmp_path / "runs" / "one" / name).read_bytes().startswith(b"\x89PNG")


def test_pictures_have_names_in_any_script() -> None:
    chart = {"data": {"values": [{"x": 1}]}, "mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative"}}}
    charts = {f"number {name}": chart for name in ("身高", "体重", "body_mass")}
    assert [*page.Page("run.html", charts, {}).pngs()] == ["number-身高.png", "number-体重.png", "number-body-mass.png"]


def test_metrics_that_are_no_numbers_leave_the_page_whole(call: Call, tmp_path: Path) -> None:
    train.main([*DIGITS, "--run", "one", "--no-report"])
    run = RunDirectory.find("one")
    run.append_metrics([{"step": 3, "epoch": 1.5, "val/loss": math.nan, "val/accuracy": math.inf}])
    assert call("one", "--png")[0] == 0
    (charts,) = re.findall(r'id="charts">(.*?)</script>', run.read("report.html").decode(), re.DOTALL)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    drawn = json.loads(charts, parse_constant=refuse)
    assert {"step": 3, "value": None}.items() <= drawn["curve loss"]["data"]["values"][-1].items()


def test_a_run_in_an_object_store_has_its_report_there(call: Call, s3_port: int) -> None:
    storage = f"s3://bucket/reports?scheme=http&endpoint_override=localhost:{s3_port}&allow_bucket_creation=true"
    train.main([*DIGITS, "--storage", storage, "--run", "one"])
    assert RunDirectory.of(storage, "one").read("report.html").startswith(b"<!doctype html>")
    code, out, _ = call(RunDirectory.of(storage, "one").uri, "--out", "here.html")
    assert (code, Path(out.strip()).name) == (0, "here.html")
    assert Path("here.html").stat().st_size > 500_000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a run first: blitz report RUN"),
        (["--png"], "name a run first"),
        (["nowhere"], "there is no run in "),
        (["nowhere", "--pgn"], "Unrecognized options: --pgn"),
    ],
)
def test_a_mistake_is_reported_in_one_line_with_exit_code_2(words: list[str], says: str, call: Call) -> None:
    code, _, err = call(*words)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_a_path_that_cannot_be_written_is_named(call: Call) -> None:
    train.main([*DIGITS, "--run", "one", "--no-report"])
    code, _, err = call("one", "--out", "/dev/null/page.html")
    assert code == 2
    assert err.startswith("error: /dev/null/page.html cannot be written")
    assert err.count("\n") == 1


def test_what_draws_is_put_together_once_and_again_where_it_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = page.vega()
    (kept,) = (tmp_path / "cache" / "blitz").iterdir()
    assert kept.read_text() == script
    kept.write_text("kept")
    assert page.vega() == "kept"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert page.vega() == script


def test_a_report_is_made_without_torch_and_ray() -> None:
    code = "import sys, jobs.report; print(sorted({'torch', 'ray', 'jinja2', 'vl_convert'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
