"""SGD, Momentum, RMSprop and Adam on a parabola with noise, at learning rates of three decades.

The comparison of the blitz's notes: momentum 0.8, RMSprop's alpha 0.9, Adam's betas 0.9 and 0.99.
"""

from ray import tune

from blitz.launch.tune.space import Space

SPACE = Space(
    recipe="parabola",
    parameters={
        "optim": tune.choice(
            [
                {"name": "sgd"},
                {"name": "momentum", "momentum": 0.8},
                {"name": "rmsprop", "alpha": 0.9},
                {"name": "adam", "betas": (0.9, 0.99)},
            ]
        ),
        "optim.lr": tune.loguniform(1e-3, 1.0),
    },
    num_trials=64,
)
