"""`python -m jobs.runs` is `blitz runs`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("runs")
