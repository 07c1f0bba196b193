"""Learning rate, weight decay, dropout and widths of the layers for a CSV: name it with --data.train-csv."""

from ray import tune

from blitz.launch.tune.space import Space

SPACE = Space(
    recipe="table_csv",
    parameters={
        "optim.lr": tune.loguniform(1e-3, 0.1),
        "optim.weight_decay": tune.loguniform(1e-4, 0.3),
        "model.dropout": tune.quniform(0.0, 0.5, 0.1),
        "model.hidden": tune.choice([(32,), (64, 32), (128, 64)]),
    },
    metric="val/loss",
    mode="min",
    num_trials=24,
    search="optuna",
)
