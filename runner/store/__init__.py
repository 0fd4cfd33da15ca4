"""Content-addressed storage: an artefact's name is the fingerprint of all its inputs."""

from runner.store.artefact import Artefact, Identity, fingerprint
from runner.store.making import Maker, Making
from runner.store.store import Store, Wanted, lock_of

__all__ = ["Artefact", "Identity", "Maker", "Making", "Store", "Wanted", "fingerprint", "lock_of"]
