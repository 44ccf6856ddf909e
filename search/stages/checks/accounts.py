"""Check of the account that trials are logged to."""

import os

from search.errors import ConfigError
from search.stages.checks.check import Checked, NotChecked, Preparation

ASK_TIMEOUT_S = 5.0


def wandb_key(job: Preparation) -> Checked | NotChecked:
    """W&B takes the key, where there is one.

    Without an explicit `online`, a key that is refused is no reason to stop: the run is logged offline.

    Raises:
        ConfigError: `tracking.wandb.mode` is `online`, and there is no key, or it is refused.
    """
    mode = job.search.config.tracking.wandb.mode
    if mode in ("offline", "disabled"):
        return NotChecked(f"tracking.wandb.mode is {mode}")
    if mode == "auto" and (off := os.environ.get("WANDB_MODE")) in ("offline", "dryrun", "disabled"):
        return NotChecked(f"WANDB_MODE is {off}")
    from search.tracking.wandb_service import KEY_REFUSED, find_service, may_have_key, server_and_key

    service = None
    if may_have_key():
        service = find_service(*server_and_key())
    way_out = "set WANDB_API_KEY (https://wandb.ai/authorize), or --set tracking.wandb.mode=offline"
    if service is None:
        if mode == "online":
            raise ConfigError(f"tracking.wandb.mode: it is online, but no W&B key is set; {way_out}")
        return NotChecked("no key is set")
    problem = service.problem(ASK_TIMEOUT_S)
    if problem is None:
        return Checked(f"{service.base_url} takes the key")
    if problem != KEY_REFUSED:
        return NotChecked(f"{service.base_url} {problem}; trials would be logged offline")
    if mode == "online":
        raise ConfigError(f"tracking.wandb.mode: it is online, but W&B at {service.base_url} {problem}; {way_out}")
    return Checked(f"{service.base_url} {problem}, so trials would be logged offline")
