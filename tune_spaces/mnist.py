"""Optimizer and learning rate for a small CNN on MNIST."""

from ray import tune

from blitz.launch.tune.space import Space

SPACE = Space(
    recipe="mnist",
    parameters={
        "optim": tune.choice(
            [
                {"name": "momentum", "lr": tune.loguniform(1e-3, 0.3)},
                {"name": "adam", "lr": tune.loguniform(1e-4, 1e-2)},
            ]
        ),
    },
    num_trials=16,
    scheduler="asha",
)
