"""The nodes of a cluster by name, and on which of them a trial runs."""

from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import actors


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Attributes:
        id: Ray's.
        address: Its IP address.
        host: Its host name.
    """

    id: str
    address: str
    host: str

    def __str__(self) -> str:
        return f"{self.address} ({self.host})"


def alive_nodes() -> list[Node]:
    """The nodes that are up."""
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["NodeManagerHostname"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def own_node_id() -> str:
    """Ray's id of the node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())


def other_nodes() -> list[Node]:
    """The nodes that are up, without the one that this process is on."""
    own = own_node_id()
    return [node for node in alive_nodes() if node.id != own]


class NodesOfTrials:
    """On which node each attempt of a trial runs, or ran last; asks Ray once for an actor."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._of_actors: dict[str, Node] = {}

    def placed(self, trial: Any) -> Node | None:
        """The node of a trial of Ray that has just got its actor; None where Ray does not know it."""
        actor = trial.temporary_state.ray_actor
        if actor is None:
            return None
        actor_id = actor._actor_id.hex()
        if actor_id not in self._of_actors:
            node_id = actors(actor_id=actor_id).get("Address", {}).get("NodeID", "")
            found = next((node for node in alive_nodes() if node.id == node_id), None)
            if found is None:
                return None
            self._of_actors[actor_id] = found
        self._nodes[trial.trial_id] = self._of_actors[actor_id]
        return self._nodes[trial.trial_id]

    def node_of(self, trial: Any) -> Node | None:
        """The node that a trial of Ray was placed on, whether or not it still is."""
        return self._nodes.get(trial.trial_id)
