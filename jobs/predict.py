"""`python -m jobs.predict` is `blitz predict`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("predict")
