"""Optimizer, learning rate, momentum and weight decay for handwritten digits."""

from ray import tune

from blitz.launch.tune.space import Space

SPACE = Space(
    recipe="digits",
    parameters={
        "optim": tune.choice(
            [
                {"name": "momentum", "momentum": tune.uniform(0.5, 0.99), "lr": tune.loguniform(3e-3, 0.3)},
                {"name": "adamw", "lr": tune.loguniform(3e-4, 3e-2)},
            ]
        ),
        "optim.weight_decay": tune.loguniform(1e-6, 1e-1),
    },
    num_trials=16,
    scheduler="asha",
    grace_evaluations=2,
)
