"""Named random streams. Each purpose draws from its own stream, so a new purpose changes no other."""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Streams:
    """The random streams of a run. `streams("order")` depends on this name, the seed and the scope."""

    seed: int
    scope: str

    def number(self, purpose: str) -> int:
        """Return a 63-bit seed that depends on the run's seed, the scope and the purpose alone."""
        digest = hashlib.sha256(f"{self.seed}/{self.scope}/{purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def __call__(self, purpose: str) -> torch.Generator:
        """Return a new generator at the start of the stream, on the CPU: every device draws the same."""
        return torch.Generator().manual_seed(self.number(purpose))

    def part(self, name: str) -> "Streams":
        """Return the streams of a named part of this scope, which are independent of all others."""
        return Streams(self.seed, f"{self.scope}/{name}")
