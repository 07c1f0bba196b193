"""Try many settings of a recipe, and find the best: a sweep, in this process or on Ray.

    blitz tune SPACE [flags]

SPACE is a file of tune_spaces/. The same command again resumes a sweep that was stopped, and one with more
--num-trials extends it; `blitz tune SPACE --help` names every flag.
"""

import shlex
from pathlib import Path

from blitz.api.tune_space import TuneSettings, tune_space
from blitz.api.write_report import report_at_the_end
from blitz.cli.command_line import parse
from blitz.errors import require
from blitz.launch.tune.run_sweep import SweepResult
from blitz.launch.tune.space import Space
from blitz.run_files.directory import RunDirectory
from blitz.settings import setting_types, setting_value, shown_words
from tune_spaces import about, all_space_names, find_space

PROG = "blitz tune"


def main(words: list[str]) -> None:
    """The command `tune`."""
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\nSpaces:")
        for name in all_space_names():
            print(f"  {name:17} {about(name)}")
        return
    require(not words[0].startswith("-"), f"name a space first: {PROG} SPACE [flags]")
    space = find_space(words[0])
    command = shlex.join(["blitz", "tune", *words])
    # The sweep of `path/space.py` is named after the file.
    name = Path(words[0].partition(":")[0]).stem
    tune(name, space, read_settings(words[0], space, words[1:]), command=command)


def read_settings(name: str, space: Space, flags: list[str]) -> TuneSettings:
    """The flags, over the defaults of the space."""
    default = TuneSettings(space.base(), num_trials=space.num_trials, search=space.search, scheduler=space.scheduler)
    return parse(default, flags, prog=f"{PROG} {name}", description=about(name))


def tune(name: str, space: Space, settings: TuneSettings, *, command: str = "") -> SweepResult:
    """Run or resume a sweep, and print a summary; `command` is its command line.

    Raises:
        UserError: if it can never start, before anything is started.
    """

    def finish(result: SweepResult) -> None:
        _summarise(result)
        if settings.report and (written := report_at_the_end(result.directory, command=command)):
            print(f"report: {written}")

    return tune_space(name, space, settings, finish=finish)


def _summarise(result: SweepResult) -> None:
    failed = [trial for trial in result.trials if trial.state == "failed"]
    print(f"sweep: {result.directory}")
    print(f"{len(result.trials)} trials in trials.csv, pictures in pictures/: {', '.join(result.pictures)}")
    if failed:
        print(f"{len(failed)} failed; the first: trial {failed[0].number}: {failed[0].error}")
    best = result.best
    if best is None:
        print("no trial finished, so there is no best trial")
        return
    print(
        f"\nbest: trial {best.number}, {result.goal.metric} {best.best:.6g} (last {best.last:.6g} at step {best.step})"
    )
    recipe = result.best_recipe
    for setting in setting_types(type(recipe)):
        marker = "*" if setting in best.settings else " "
        print(f"{marker} {setting:24} {' '.join(shown_words(setting_value(recipe, setting)))}".rstrip())
    print(f"\nrepeat it: {result.command}")
    best_run = RunDirectory.of(result.directory.uri, "best")
    print(f"evaluate it: blitz evaluate {shlex.quote(str(best_run))}")
