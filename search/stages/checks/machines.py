"""Checks of what trials run on: Ray, and the cores and GPUs of its nodes."""

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


def gpu_memory(job: Preparation) -> NotChecked:
    """Whether the largest model fits a GPU is measured by the search; here it is only said."""
    from segcore.training.device import choose_device

    if choose_device().type != "cuda":
        return NotChecked("no GPU here")
    return NotChecked("it is measured when the search begins, and what does not fit fails as out of memory")
