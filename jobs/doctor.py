"""`python -m jobs.doctor` is `blitz doctor`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("doctor")
