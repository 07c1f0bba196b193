"""`python -m jobs.evaluate` is `blitz evaluate`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("evaluate")
