"""Learning rate, weight decay, dropout and size of RealMLP for a CSV."""

from ray import tune

from blitz.launch.tune.space import Space

SPACE = Space(
    recipe="table_csv",
    overrides={"model.name": "realmlp"},
    parameters={
        "optim.lr": tune.loguniform(0.02, 0.3),
        "optim.weight_decay": tune.loguniform(1e-3, 0.1),
        "model.dropout": tune.choice([0.0, 0.15, 0.3]),
        "model.hidden": tune.choice([(128, 128, 128), (256, 256, 256), (512, 512)]),
    },
    metric="val/loss",
    mode="min",
    num_trials=24,
    search="optuna",
)
