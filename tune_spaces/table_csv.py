"""Learning rate, weight decay, dropout and size of TabM for a CSV: name it with --data.train-csv."""

from ray import tune

from blitz.launch.tune.space import Space

SPACE = Space(
    recipe="table_csv",
    parameters={
        "optim.lr": tune.loguniform(5e-4, 1e-2),
        "optim.weight_decay": tune.loguniform(1e-4, 0.1),
        "model.dropout": tune.choice([0.0, 0.1, 0.2, 0.4]),
        "model.hidden": tune.choice([(64, 64), (128, 128), (128, 128, 128)]),
    },
    metric="val/loss",
    mode="min",
    num_trials=24,
    search="optuna",
)
