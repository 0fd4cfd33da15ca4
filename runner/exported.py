"""Models that `python -m runner.store export` wrote.

from runner.exported import load
model = load("model.safetensors")
"""

import hashlib
import json
from pathlib import Path

import safetensors.torch
from omegaconf import OmegaConf
from torch import nn

from data.errors import UserError
from methods.base import Method
from models.architecture import Architecture
from runner.plan import build


def load(file: str | Path) -> nn.Module:
    """Return the module of a file of weights, on the CPU and in evaluation mode.

    It maps images (B, channels, size, size) float32, normalised as (x - mean) / std for x from 0 to 1,
    to logits (B, classes); these numbers are in the JSON file beside it. Raise UserError if that is
    missing or describes other weights.
    """
    about = Path(file).with_suffix(".json")
    if not about.is_file():
        raise UserError(
            f"{about} is missing: it holds the configuration of the model, keep both together"
        )
    told, content = json.loads(about.read_text()), Path(file).read_bytes()
    if hashlib.sha256(content).hexdigest() != told["sha256"]:
        raise UserError(f"{file} has another checksum than {about.name} says: export the model again")
    architecture = build(OmegaConf.create(told["model"]), Architecture, "model")
    state = safetensors.torch.load(content)

    def fresh() -> nn.Module:
        return architecture.randomly_initialised(told["channels"], told["size"], told["classes"], seed=0)

    if told["method"] is None:
        model = fresh()
    else:
        model = build(OmegaConf.create(told["method"]), Method, "method").module(fresh, state)
    model.load_state_dict(state)
    return model.eval()
