"""blitz: one PyTorch training loop, from a laptop to a Ray cluster.

    import blitz
    run = blitz.train("digits", epochs=5)
    run.metrics["val/accuracy"]

Every name is imported when it is first used: `import blitz` takes milliseconds, and imports neither torch nor ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blitz.api.run import Run as Run
    from blitz.api.run import open_run
    from blitz.api.run import runs as runs
    from blitz.api.train_run import train as train
    from blitz.api.tune_space import Sweep as Sweep
    from blitz.api.tune_space import tune as tune
    from blitz.data.arrays import ArrayDataset as ArrayDataset
    from blitz.data.plan import Split as Split
    from blitz.errors import DataError as DataError
    from blitz.errors import RunFailed as RunFailed
    from blitz.errors import UserError as UserError
    from blitz.launch.scale import Scale as Scale
    from blitz.launch.tune.space import Space as Space
    from blitz.optim import Group as Group
    from blitz.optim import ModelOptim as ModelOptim
    from blitz.optim import Optim as Optim
    from blitz.outputs.best import Best as Best
    from blitz.outputs.metrics import Classification as Classification
    from blitz.outputs.metrics import Regression as Regression
    from blitz.recipe import Batch as Batch
    from blitz.recipe import Recipe as Recipe
    from blitz.recipe import may_change as may_change
    from blitz.training.loop import Checkpoints as Checkpoints

    open = open_run

_NAMES = {
    "train": "blitz.api.train_run:train",
    "find_lr": "blitz.api.find_rate:find_lr",
    "tune": "blitz.api.tune_space:tune",
    "open": "blitz.api.run:open_run",
    "runs": "blitz.api.run:runs",
    "Run": "blitz.api.run:Run",
    "Sweep": "blitz.api.tune_space:Sweep",
    "Recipe": "blitz.recipe:Recipe",
    "Batch": "blitz.recipe:Batch",
    "may_change": "blitz.recipe:may_change",
    "Split": "blitz.data.plan:Split",
    "Optim": "blitz.optim:Optim",
    "ModelOptim": "blitz.optim:ModelOptim",
    "Group": "blitz.optim:Group",
    "Best": "blitz.outputs.best:Best",
    "Scale": "blitz.launch.scale:Scale",
    "Checkpoints": "blitz.training.loop:Checkpoints",
    "Space": "blitz.launch.tune.space:Space",
    "ArrayDataset": "blitz.data.arrays:ArrayDataset",
    "Classification": "blitz.outputs.metrics:Classification",
    "Regression": "blitz.outputs.metrics:Regression",
    "UserError": "blitz.errors:UserError",
    "DataError": "blitz.errors:DataError",
    "RunFailed": "blitz.errors:RunFailed",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'blitz' has no attribute '{name}'")
    module, _, member = _NAMES[name].partition(":")
    value = getattr(import_module(module), member)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_NAMES)
