"""A space and the options of a small population, for the tests of forks."""

from search.config.tree import SchedulerConfig
from search.space.parse import parse_space
from segcore.config import TrainConfig

METRIC, EPOCHS = "val/iou", 6
OPTIONS = SchedulerConfig(name="pbt", population=4, perturbation_interval=2)
SPACE = parse_space(
    {
        "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
        "loss.dice": {"uniform": [0.0, 2.0]},
        "model.dropout": {"quniform": [0.0, 0.4, 0.1]},
        "train.batch_size": {"int": [4, 32]},
        "lr_scheduler": {"choice": {"plateau": {"patience": {"int": [1, 5]}}, "constant": {}}},
    },
    TrainConfig(),
)
