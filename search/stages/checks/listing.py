"""The one list of checks: `segsearch check` goes through it whole, and so does every job before it trains.

A new check is an entry here. What is quick goes before what is long; what asks a service has a time limit.
"""

from search.stages.checks import accounts, contents, machines, places, room
from search.stages.checks.check import Check, Kind, Moment, Need

_BEGIN: frozenset[Moment] = frozenset({"begin"})
_NEW: frozenset[Moment] = frozenset({"begin", "extend"})
_SEARCH: frozenset[Kind] = frozenset({"search"})
_NETWORK: frozenset[Need] = frozenset({"network"})
_RAY: frozenset[Need] = frozenset({"ray"})

CHECKS = (
    Check("the run's folder", places.run_folder),
    Check("export targets", places.targets, moments=_NEW),
    Check("Ray", machines.ray_answers, needs=_RAY, kinds=_SEARCH),
    Check("a trial's share of a node", machines.resources, needs=_RAY, kinds=_SEARCH, after=("Ray",)),
    Check("images and masks", contents.images_and_masks),
    Check("W&B", accounts.wandb_key, needs=_NETWORK, moments=_BEGIN, kinds=_SEARCH),
    Check(
        "the accounts of export targets", places.targets_answer, needs=_NETWORK, moments=_NEW, after=("export targets",)
    ),
    Check("models", contents.models, needs=_NETWORK, is_long=True),
    Check("batches", contents.batches, after=("images and masks", "models"), is_long=True),
    Check("room for the results", room.results_disk, moments=_BEGIN, after=("models",), is_long=True),
    Check("room for loader processes", room.loader_memory, moments=_BEGIN, after=("images and masks",), is_long=True),
    Check("space", contents.space, moments=_NEW, is_long=True),
    Check("decoding", contents.decoded, after=("images and masks",), is_long=True),
    Check(
        "what the other nodes see",
        machines.other_nodes,
        needs=_RAY,
        kinds=_SEARCH,
        after=("Ray", "decoding"),
        is_long=True,
    ),
    Check("one batch", contents.one_batch, moments=_BEGIN, after=("decoding",), is_long=True),
    Check("that the models fit in GPU memory", machines.gpu_memory, kinds=_SEARCH, moments=_BEGIN),
)
"""In the order in which they are made."""
