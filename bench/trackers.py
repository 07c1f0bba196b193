"""Whether a tracker slows training: the same run with and without `--track`, in turns.

    python -m bench.trackers [--rounds 7] [--epochs 8] [--trackers mlflow wandb]

`digits` in this process, which logs every 5 steps, oftener than people do. MLflow's server is one of this machine and
W&B writes offline, so both share its cores with training. Steps a second are the median of what the run logs; the CPU
seconds are those of this process, the tracker's thread among them. Ratios are of the same round, and their median
over rounds is printed with the least and the most.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import blitz
from blitz.trackers.tracker import TrackerName
from tests.trackers.stores import mlflow_server


def timed(folder: Path, name: str, track: tuple[TrackerName, ...], *, epochs: int) -> tuple[float, float]:
    """Median examples a second, and CPU seconds of the whole call."""
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run = blitz.train(
            "digits",
            epochs=epochs,
            log_every_steps=5,
            run=name,
            storage=folder,
            track=track,
            num_workers=0,
            report=False,
        )
    cpu = time.process_time() - started
    rates = [rate for rate in run.history.column("examples_per_second").to_pylist() if rate is not None]
    return statistics.median(rates), cpu


def main() -> None:
    """Print a line for each tracker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--trackers", nargs="+", default=["mlflow", "wandb"])
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update({"WANDB_MODE": "offline", "WANDB_DIR": name, "WANDB_SILENT": "true"})
        with mlflow_server(folder / "mlflow") as uri:
            os.environ["MLFLOW_TRACKING_URI"] = uri
            timed(folder, "warm", (), epochs=1)
            for tracker in settings.trackers:
                timed(folder, f"warm-{tracker}", (tracker,), epochs=1)
                rates, cpus = [], []
                for number in range(settings.rounds):
                    rate, cpu = timed(folder, f"{tracker}-{number}-without", (), epochs=settings.epochs)
                    tracked_rate, tracked_cpu = timed(folder, f"{tracker}-{number}", (tracker,), epochs=settings.epochs)
                    rates.append(tracked_rate / rate)
                    cpus.append(tracked_cpu / cpu)
                print(
                    f"{tracker:8} steps/s {_spread(rates)} of those without it; CPU seconds {_spread(cpus)}", flush=True
                )


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
