"""Artefacts of a single stage, as tests make them."""

from collections.abc import Callable
from pathlib import Path

from runner.store import Artefact, Identity, Making, Store


def make_one(store: Store, stage: str, identity: Identity, produce: Callable[[Path], None]) -> Artefact:
    """Return the artefact of this identity. If it is absent, `produce` fills its folder."""

    def one(making: Making) -> None:
        produce(making.folders[stage])
        making.keep(stage)

    return store.get_many({stage: (stage, identity)}, one)[stage]
