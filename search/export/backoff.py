"""How long to wait before a request is sent again, and when to stop asking."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Backoff:
    """Exponential waits with jitter, and the waits between two looks at a slow service.

    Attributes:
        attempts: Requests in all, the first one included.
        first_s: Wait after the first failure, in seconds; each further one is twice as long.
        ceiling_s: Longest wait that is chosen here, in seconds.
        longest_asked_s: Longest wait that a service may ask for; more than that ends the attempts.
        jitter: Share of a wait that is drawn at random, in [0, 1], so that clients do not march in step.
        poll_delays_s: Waits between looks at a state that should soon change, in seconds.
        operation_polls: How often a running operation is asked for its state.
        sleep: Replaced in tests.
    """

    attempts: int = 7
    first_s: float = 1.0
    ceiling_s: float = 60.0
    longest_asked_s: float = 300.0
    jitter: float = 0.25
    poll_delays_s: tuple[float, ...] = (0.3, 0.7, 1.5, 3.0, 5.0, 5.0, 5.0, 5.0, 5.0)
    operation_polls: int = 120
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def wait_s(self, failures: int, asked_s: float | None = None) -> float:
        """Seconds to wait after the given number of failures; what the service asked for counts if it is longer."""
        own = min(self.ceiling_s, self.first_s * 2.0 ** (failures - 1))
        own *= 1.0 + self.jitter * random.random()
        return own if asked_s is None else max(own, asked_s)
