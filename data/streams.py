"""Named random streams: every purpose draws from its own, so adding one never shifts another."""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Streams:
    """Random streams of one run; `streams("order")` is always the same stream for the same seed."""

    seed: int
    scope: str

    def number(self, purpose: str) -> int:
        """A 63-bit seed that depends on the run's seed, the scope and the purpose, and nothing else."""
        digest = hashlib.sha256(f"{self.seed}/{self.scope}/{purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def __call__(self, purpose: str) -> torch.Generator:
        """A new CPU generator at the start of the named stream (CPU: the same draws on every device)."""
        return torch.Generator().manual_seed(self.number(purpose))

    def part(self, name: str) -> "Streams":
        """The streams of a named part of this scope: independent of all others."""
        return Streams(self.seed, f"{self.scope}/{name}")
