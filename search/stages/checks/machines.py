"""Checks of what trials run on: Ray, and the cores and GPUs of its nodes."""

from pathlib import Path

from search.stages.checking import require_cluster
from search.stages.checks.check import Checked, NotChecked, Preparation


def ray_answers(job: Preparation) -> Checked:
    """The Ray that the config or the environment names answers; one that is to be started here is not started.

    Raises:
        ResourceError: With the address and what names it.
    """
    require_cluster(job.search.config)
    return Checked("it answers, or is started here")


def resources(job: Preparation) -> Checked:
    """Some node can run a trial.

    Raises:
        ResourceError: None could; with what the nodes have.
    """
    from search.tune.cluster.resources import known_nodes, plan_on

    config = job.search.config
    nodes = known_nodes(config.resources.address)
    gpus = config.resources.gpus_per_trial
    share = float(any(node.get("GPU", 0) for node in nodes)) if gpus == "auto" else float(gpus)
    plan = plan_on(nodes, config, share)
    if gpus == "auto" and share:
        return Checked("a trial fits a node; how many share a GPU is measured when the search begins")
    return Checked(str(plan))


def other_nodes(job: Preparation) -> Checked | NotChecked:
    """Every other node of a cluster sees the results, the cache and the data.

    Raises:
        ResourceError: With the nodes that do not.
    """
    from search.tune.cluster.sharing import Shared, require_shared
    from search.tune.cluster.start import visited

    config = job.search.config
    index, cache_path = job.data()
    results = Path(config.results) if job.paths is None else job.paths.root.parent
    data = [] if config.data.root == "synthetic" else [sample.image for sample in index.samples]
    with visited(config.resources.address) as is_up:
        count = require_shared(Shared.of(results, cache_path, data)) if is_up else 0
    return Checked(f"{count} other nodes see results, cache and data") if count else NotChecked("there is one node")


def gpu_memory(job: Preparation) -> NotChecked:
    """Whether the largest model fits a GPU is measured by the search; here it is only said."""
    from segcore.training.device import choose_device

    if choose_device().type != "cuda":
        return NotChecked("no GPU here")
    return NotChecked("it is measured when the search begins, and what does not fit fails as out of memory")
