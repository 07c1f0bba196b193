"""`python -m jobs.train` is `blitz train`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("train")
