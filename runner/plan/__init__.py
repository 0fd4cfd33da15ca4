"""Plans: a composed configuration as checked, typed parts, and the identity of every stage."""

from runner.plan.build import build, build_chosen, class_of
from runner.plan.plan import Plan

__all__ = ["Plan", "build", "build_chosen", "class_of"]
