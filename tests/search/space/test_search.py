import pytest

from search.config.tree import SearchConfig
from search.space.search import Search
from segcore.errors import ConfigError
from segcore.objective import Objective


def test_a_search_holds_what_its_config_says() -> None:
    config = SearchConfig.model_validate(
        {
            "name": "x",
            "optimizer": {"lr": 0.01},
            "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}, "loss.dice": {"uniform": [0, 1]}},
            "search": {"metric": "val/loss", "enqueue": [{"optimizer.lr": 0.02}], "second_metric": "cost/parameters"},
        }
    )
    search = Search.of(config)
    assert search.objective == Objective("val/loss", "min", "cost/parameters")
    assert list(search.space.keys()) == ["optimizer.lr", "loss.dice"]
    assert search.enqueued_points() == [{"optimizer.lr": 0.02, "loss.dice": config.loss.dice}]
    trained = search.trained_with({"optimizer.lr": 0.05})
    assert (search.base.optimizer.lr, trained.optimizer.lr, trained.loss) == (0.01, 0.05, search.base.loss)


def test_a_space_that_is_not_sound_is_refused_with_its_key() -> None:
    config = SearchConfig.model_validate({"name": "x", "space": {"optimizer.rl": {"uniform": [0, 1]}}})
    with pytest.raises(ConfigError, match=r"space\.optimizer\.rl.*valid here: name, lr"):
        Search.of(config)
