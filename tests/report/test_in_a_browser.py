"""Reports as a browser shows them."""

import json
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from blitz.api.train_run import TrainSettings
from blitz.api.write_report import ReportSettings
from blitz.api.write_report import write_report as report
from blitz.cli import train as jobs_train
from blitz.cli import tune as jobs_tune
from blitz.launch.scale import Scale
from blitz.optim import Optim
from blitz.recipe import Recipe
from blitz.recipes.digits import Digits
from blitz.recipes.parabola import Parabola
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints
from tests.browser import Browser

EVIL = "<script>window.hacked=1</script>"
QUOTES = """<img src=x onerror="window.hacked=2">'&"""
RECIPE = Digits(epochs=3, max_train_rows=320, log_every_steps=2, optim=Optim(lr=0.003))


def trained(recipe: Recipe, folder: Path) -> Path:
    """The report of a run in this process, or of one that resumes."""
    scale = Scale(num_workers=0, use_gpu="no")
    jobs_train.train(TrainSettings(recipe, "run", str(folder), checkpoint=Checkpoints(every_steps=5), scale=scale))
    return folder / "run" / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that lost its newest checkpoint and went on."""
    folder = tmp_path_factory.mktemp("digits")
    trained(RECIPE, folder)
    RunDirectory.of(str(folder), "run").delete_checkpoint(30)
    (folder / "run" / "result.json").unlink()
    return trained(RECIPE, folder)


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run whose name, classes, settings and command are code."""
    folder = tmp_path_factory.mktemp("evil")
    table = folder / "rows <b>.csv"
    rows = [
        f'{number},"{EVIL}"' if number % 2 else f'{number},"{QUOTES.replace(chr(34), chr(34) * 2)}"'
        for number in range(60)
    ]
    table.write_text("\n".join(["x,y", *rows, ""]))
    words = f"table_csv --data.target y --data.val-fraction 0.4 --epochs 2 --storage {folder} --run".split()
    jobs_train.main([*words, "name", "--data.train-csv", str(table)])
    # `--run` refuses such a name; a directory may have it all the same.
    (folder / "name").rename(folder / "<i>&name")
    report([RunDirectory.of(str(folder), "<i>&name")])
    return folder / "<i>&name" / "report.html"


def drawn(browser: Browser) -> dict[str, int]:
    """Charts by their names, and how many lines, bars and points each has."""
    found: dict[str, int] = browser.run(
        "return Object.fromEntries([...document.querySelectorAll('[data-chart]')].map(e =>"
        " [e.dataset.chart, e.querySelectorAll('svg [role=graphics-symbol] path, svg path[role=graphics-symbol],"
        " svg path[aria-roledescription]').length]))"
    )
    return found


def test_it_opens_without_a_word_from_the_console_and_asks_for_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert page.stat().st_size < 5_000_000


def test_its_curves_and_its_gallery_are_there(browser: Browser, page: Path) -> None:
    browser.open(page)
    charts = drawn(browser)
    curves = ["loss", "val/accuracy", "learning rate", "examples a second"]
    assert {*(f"curve {name}" for name in curves), "time", "by class", "confusion"} <= charts.keys()
    assert min(charts.values()) > 0, charts
    pictures = browser.run(
        "return ['mistakes', 'random'].map(kind => [...document.querySelectorAll(`[data-gallery=${kind}] img`)]"
        ".filter(one => one.naturalWidth === 8).length)"
    )
    assert pictures == [24, 24]
    first = browser.run("return document.querySelector('[data-gallery=mistakes] figcaption').innerText")
    assert " % is " in first.replace("\n", " ")


def test_where_it_went_on_is_marked_on_the_curves(browser: Browser, page: Path) -> None:
    browser.open(page)
    marked = browser.run(
        "return document.querySelector('[data-chart=\"curve loss\"]').textContent.match(/resumed/g).length"
    )
    shown = browser.run("return document.getElementById('events').innerText")
    assert marked == 1
    assert "resumed at step 25, having reached step 30" in shown


def test_dragging_across_a_curve_zooms_all_of_them_and_a_double_click_ends_it(browser: Browser, page: Path) -> None:
    # Of each curve the steps from which and to which its axis goes.
    ranges = (
        "[...document.querySelectorAll(`[data-chart^=curve] [aria-label^=X-axis]`)]"
        ".map(axis => axis.ariaLabel.match(/from ([0-9.]+) to ([0-9.]+)/).slice(1).map(Number))"
    )
    browser.open(page)
    whole = browser.run(f"return {ranges}")
    assert len(whole) == 7
    assert {last for _, last in whole} == {30}
    chart = browser.driver.find_element(By.CSS_SELECTOR, "[data-chart='curve loss']")
    mouse = ActionChains(browser.driver).scroll_to_element(chart).move_to_element(chart)
    mouse.click_and_hold().move_by_offset(90, 0).release().perform()
    browser.wait_for(f"return {ranges}.every(([first, last]) => 10 < first && first < last && last < 28)")
    ActionChains(browser.driver).double_click(chart).perform()
    browser.wait_for(f"return JSON.stringify({ranges}) === {json.dumps(json.dumps(whole, separators=(',', ':')))}")


def test_a_curve_tells_its_values_under_the_mouse(browser: Browser, page: Path) -> None:
    browser.open(page)
    chart = browser.driver.find_element(By.CSS_SELECTOR, "[data-chart='curve learning rate'] svg")
    ActionChains(browser.driver).scroll_to_element(chart).move_to_element(chart).perform()
    browser.wait_for("return document.querySelector('#vg-tooltip-element.visible')?.textContent.includes('step')")


def test_it_is_dark_where_the_reader_wants_it_dark(browser: Browser, page: Path) -> None:
    asks = (
        "return [getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('.role-axis-label text').getAttribute('fill')]"
    )
    browser.open(page)
    light = browser.run(asks)
    browser.open(page, dark=True)
    assert all(one != other for one, other in zip(browser.run(asks), light, strict=True))


def test_a_phone_shows_it_whole(browser: Browser, page: Path, evil_page: Path) -> None:
    for shown in (page, evil_page):
        browser.open(shown, phone=True)
        assert browser.run("return document.documentElement.scrollWidth") == 390
        widest = browser.run(
            "return Math.max(...[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().right))"
        )
        assert widest <= 390


def test_text_in_data_is_shown_as_text(browser: Browser, evil_page: Path) -> None:
    browser.open(evil_page)
    assert browser.complaints() == []
    assert browser.run("return window.hacked ?? null") is None
    assert browser.run("return document.querySelector('h1').textContent") == "<i>&name"
    shown = browser.run("return document.body.innerText")
    assert "rows <b>.csv" in shown
    named = browser.run("return document.querySelector(`[data-chart='by class']`).textContent")
    # The axis cuts off what is long.
    assert EVIL[:20] in named
    assert QUOTES[:20] in named
    # Under the mouse too, where text is put into the page as HTML.
    point = browser.driver.find_element(By.CSS_SELECTOR, "[data-chart='confusion'] path[aria-roledescription]")
    ActionChains(browser.driver).scroll_to_element(point).move_to_element(point).perform()
    browser.wait_for("return document.querySelector('#vg-tooltip-element.visible')?.textContent.includes('truth')")
    assert browser.run("return document.querySelectorAll('#vg-tooltip-element :is(script, img)').length") == 0
    assert browser.run("return window.hacked ?? null") is None


def test_numbers_are_shown_predicted_against_true(browser: Browser, tmp_path: Path) -> None:
    browser.open(trained(Parabola(epochs=1), tmp_path))
    assert browser.complaints() == []
    # A point for each of the 200 rows, and the line that they should lie on.
    assert browser.run("return document.querySelectorAll('[data-chart^=number] .mark-symbol path').length") == 200


def test_runs_side_by_side_tell_what_differs(browser: Browser, page: Path, tmp_path: Path) -> None:
    other = trained(Digits(epochs=1, max_train_rows=320, optim=Optim(name="sgd", lr=0.1)), tmp_path)
    runs = [RunDirectory.of(str(one.parent)) for one in (page, other)]
    (written,) = report(runs, ReportSettings(out=str(tmp_path / "both.html")))
    browser.open(Path(written))
    assert browser.complaints() == []
    table = browser.run("return document.getElementById('differing').innerText").replace("\t", " ")
    assert "optim.name adam sgd" in table
    assert "optim.lr 0.003 0.1" in table
    assert "optim.weight_decay" not in table
    assert min(drawn(browser).values()) > 0


def test_a_sweep_is_sorted_by_a_click(browser: Browser, tmp_path: Path) -> None:
    words = f"optimizers --num-trials 6 --epochs 2 --storage {tmp_path} --run sweep".split()
    jobs_tune.main(words)
    browser.open(tmp_path / "sweep" / "report.html")
    assert browser.complaints() == []
    assert drawn(browser).keys() == {"parallel", "trials"}
    assert min(drawn(browser).values()) > 0

    def column(name: str) -> list[str]:
        found: list[str] = browser.run(
            "const heads = [...document.querySelectorAll('th')];"
            "const column = heads.findIndex(one => one.innerText.trim() === arguments[0]);"
            "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[column].dataset.value)",
            name,
        )
        return found

    best = [float(value) for value in column("best")]
    assert best == sorted(best)
    head = browser.driver.find_element(By.XPATH, "//th[button='trial']")
    ActionChains(browser.driver).scroll_to_element(head).click(head).perform()
    assert column("trial") == [str(number) for number in range(6)]
    head.click()
    assert column("trial") == [str(number) for number in reversed(range(6))]


def test_translations_show_where_the_model_looked_and_their_text_as_text(browser: Browser, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    pairs = [f'"{one} <b>haus</b>","{one} <script>house</script>"' for one in ("ein", "kein", "mein", "dein")]
    table.write_text("\n".join(["source,target", *pairs * 8, ""]))
    words = f"--data.train-csv {table} --data.source source --data.target target --data.val-fraction 0.3 --epochs 1"
    small = "--data.vocabulary 300 --model.width 16 --scale.num-workers 0 --scale.use-gpu no"
    jobs_train.main(["translate", *words.split(), *small.split(), "--storage", str(tmp_path), "--run", "run"])
    browser.open(tmp_path / "run" / "report.html")
    assert browser.complaints() == []
    assert "<b>haus</b>" in browser.run("return document.getElementById('sentences').innerText")
    assert browser.run("return document.querySelectorAll('[data-chart=\"attention 0\"] .mark-rect path').length") > 0
