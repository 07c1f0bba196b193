"""`python -m jobs.tune` is `blitz tune`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("tune")
