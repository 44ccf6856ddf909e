"""What a scheduler's options must be, given the length of a trial, the number of trials, and the space."""

from search.config.problems import Problem
from search.config.tree import SCHEDULER_OPTIONS, SchedulerConfig, SearchConfig
from search.space.tree import Space

KEY = "search.scheduler"
NO_OTHER = "or scheduler name none"


def scheduler_problems(config: SearchConfig, space: Space) -> list[Problem]:
    """Every option that the file sets and that the scheduler does not use, or that cannot work in this search.

    An option that the file leaves out gives way instead: see `fitted_scheduler`.
    """
    options, epochs, num_samples = config.search.scheduler, config.train.epochs, config.search.num_samples
    problems = _unused(options)
    if _sets(options, "grace_period") and options.grace_period >= epochs and (epochs > 1 or options.grace_period > 1):
        found = f"found {options.grace_period}, but a trial has only train.epochs={epochs}"
        valid = f"valid: 1 to {epochs - 1}, {NO_OTHER}" if epochs > 1 else "valid: 1, or scheduler name none"
        problems.append(Problem(f"{KEY}.grace_period", f"{found} and none could be stopped before its end; {valid}"))
    elif _sets(options, "brackets") and options.brackets > (most := _most_brackets(options, epochs)):
        first = options.grace_period * options.reduction_factor ** (options.brackets - 1)
        message = (
            f"found {options.brackets}, whose last bracket would have its first rung at "
            f"grace_period * reduction_factor ** {options.brackets - 1} = {first} of train.epochs={epochs}; "
            f"valid: 1 to {most}"
        )
        problems.append(Problem(f"{KEY}.brackets", message))
    if _sets(options, "min_samples") and options.min_samples >= max(num_samples, 2):
        found = f"found {options.min_samples} other trials, but there are only search.num_samples={num_samples} in all"
        problems.append(Problem(f"{KEY}.min_samples", f"{found}; valid: 1 to {max(1, num_samples - 1)}"))
    if options.name == "pbt":
        problems += _pbt_problems(config, space)
    return problems + _second_metric_problems(config)


def fitted_scheduler(config: SearchConfig) -> SchedulerConfig:
    """The scheduler's options, in which those that the file does not set have given way to a shorter search."""
    options, epochs, num_samples = config.search.scheduler, config.train.epochs, config.search.num_samples
    most = {
        "grace_period": max(1, epochs - 1),
        "min_samples": max(1, num_samples - 1),
        "population": num_samples,
        "perturbation_interval": max(1, epochs - 1),
    }
    changes = {key: limit for key, limit in most.items() if _uses(options, key) and getattr(options, key) > limit}
    fitted = options.model_copy(update=changes)
    if _uses(fitted, "brackets"):
        most_brackets = _most_brackets(fitted, epochs)
        fitted = fitted.model_copy(update={"brackets": min(fitted.brackets, most_brackets)})
    return fitted


def shapes_the_weights(key: str) -> bool:
    """Whether a model with another value of the key could not go on from the same weights."""
    return key.startswith("model.") and key != "model.dropout"


def _uses(options: SchedulerConfig, key: str) -> bool:
    return key in SCHEDULER_OPTIONS[options.name]


def _sets(options: SchedulerConfig, key: str) -> bool:
    return _uses(options, key) and key in options.model_fields_set


def _unused(options: SchedulerConfig) -> list[Problem]:
    used = SCHEDULER_OPTIONS[options.name]
    rule = f"uses {', '.join(used)}" if used else "has no options"
    return [
        Problem(
            f"{KEY}.{key}",
            f"belongs to {_owners(key)}, but the scheduler is {options.name}, which {rule}; leave it out, or replace "
            f"the whole map, e.g. --set '{KEY}={{name: {options.name}}}'",
        )
        for key in SchedulerConfig.model_fields
        if key in options.model_fields_set and key != "name" and key not in used
    ]


def _second_metric_problems(config: SearchConfig) -> list[Problem]:
    """Of the schedulers, only those that weigh a cost, or stop nobody, leave a cheap model its chance."""
    options, second = config.search.scheduler, config.search.second_metric
    if second is None or options.name == "none" or (options.name == "asha" and options.promote):
        return []
    key, found = ("promote", "promote: false") if options.name == "asha" else ("name", options.name)
    message = (
        f"found {found}, which stops trials by search.metric alone, so that a cheap model would seldom be trained to "
        f"its end, but search.second_metric is {second}; valid: asha with promote: true, none, or second_metric: null"
    )
    return [Problem(f"{KEY}.{key}", message)]


def _owners(key: str) -> str:
    return " and ".join(name for name, keys in SCHEDULER_OPTIONS.items() if key in keys)


def _most_brackets(options: SchedulerConfig, epochs: int) -> int:
    """How many brackets have a rung before a trial's end; at least 1."""
    most, rung = 1, options.grace_period * options.reduction_factor
    while rung < epochs:
        most, rung = most + 1, rung * options.reduction_factor
    return most


def _pbt_problems(config: SearchConfig, space: Space) -> list[Problem]:
    options, epochs, num_samples = config.search.scheduler, config.train.epochs, config.search.num_samples
    problems: list[Problem] = []
    if num_samples < 4:
        message = f"found {num_samples}, but pbt needs a population of at least 4 trials; valid: 4 or more"
        problems.append(Problem("search.num_samples", message))
    elif _sets(options, "population") and options.population > num_samples:
        message = f"found {options.population}, but there are only search.num_samples={num_samples} trials"
        problems.append(Problem(f"{KEY}.population", f"{message}; valid: 4 to {num_samples}"))
    if epochs == 1:
        problems.append(Problem("train.epochs", "found 1, but pbt compares trials before their end; valid: 2 or more"))
    elif _sets(options, "perturbation_interval") and options.perturbation_interval >= epochs:
        found = f"found {options.perturbation_interval}, but a trial has only train.epochs={epochs}"
        problems.append(Problem(f"{KEY}.perturbation_interval", f"{found}; valid: 1 to {epochs - 1}"))
    problems += [
        Problem(
            f"space.{key}",
            "cannot be searched with scheduler pbt: a fork goes on with its parent's weights, which do not fit another "
            f"{key}; set {key} outside of space, or use another scheduler",
        )
        for key in filter(shapes_the_weights, space.keys())
    ]
    if len(space.parameters()) == 0:
        message = "is empty, but pbt alters settings in mid-training; valid: at least one key, e.g. optimizer.lr"
        problems.append(Problem("space", message))
    return problems
