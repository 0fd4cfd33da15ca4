"""Content-addressed storage: an artefact's name is the fingerprint of all its inputs."""

from runner.store.artefact import Artefact, Identity, fingerprint
from runner.store.store import Making, Store, Wanted

__all__ = ["Artefact", "Identity", "Making", "Store", "Wanted", "fingerprint"]
