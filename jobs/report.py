"""`python -m jobs.report` is `blitz report`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("report")
