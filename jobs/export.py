"""`python -m jobs.export` is `blitz export`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("export")
