"""Learning rate and momentum of SGD for LeNet on CIFAR-10, in batches of 32.

Batches of 4, as the blitz has them, make for steps that cost more than what they compute.
"""

from ray import tune

from blitz.launch.tune.space import Space

SPACE = Space(
    recipe="cifar10",
    overrides={"global_batch_size": 32, "epochs": 4, "optim.schedule": "cosine"},
    parameters={
        "optim.lr": tune.loguniform(1e-3, 0.1),
        "optim.momentum": tune.uniform(0.5, 0.99),
        "optim.weight_decay": tune.loguniform(1e-5, 1e-2),
    },
    num_trials=16,
    scheduler="asha",
)
