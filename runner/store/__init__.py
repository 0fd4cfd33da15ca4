"""Content-addressed storage: what a stage makes is named by what it was made from."""

from runner.store.artefact import Artefact, Identity, fingerprint
from runner.store.store import Making, Store, Wanted

__all__ = ["Artefact", "Identity", "Making", "Store", "Wanted", "fingerprint"]
