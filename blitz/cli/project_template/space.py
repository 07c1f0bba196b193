"""What `blitz tune space.py` varies."""

from ray import tune

from blitz import Space
from $module import $class_name

SPACE = Space(
    recipe=$class_name,
    parameters={
        "optim.lr": tune.loguniform(1e-3, 1e-1),
        "optim.name": tune.choice(["adam", "momentum", "rmsprop"]),
        "width": tune.choice([16, 32, 64]),
    },
    num_trials=16,
)
