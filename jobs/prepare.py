"""`python -m jobs.prepare` is `blitz prepare`."""

from blitz.cli.main import run_command

if __name__ == "__main__":
    run_command("prepare")
