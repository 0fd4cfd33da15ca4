"""Components from configuration nodes. Each field is checked and converted by its annotation."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, ClassVar, TypeVar, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from data.annotations import single_values_in_lists
from data.bounds import check_bounds
from data.classes import number_classes
from data.component import Component
from data.errors import UserError, reason
from data.sources import Source
from runner.foreign import blamed
from runner.naming import TITLE
from runner.own_code import digest_of
from runner.targets import require_allowed
from runner.wording import PACKAGES, lacks_package

Part = TypeVar("Part", bound=Component)


def build(node: Any, kind: type[Part], option: str, source: Source | None = None) -> Part:
    """Return the component that a configuration node names by `_target_`.

    `source` knows the names of classes; without it they are given by number.

    Raise UserError, naming the option, if the target is not a component of this kind, or if a field is
    unknown, missing, of the wrong type or out of its bounds.
    """
    cls = class_of(node, kind, option)
    digest_of(cls.kind)
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    given = {str(name): value for name, value in container.items() if name not in ("_target_", TITLE)}
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise UserError(f"{option}.{name} is no parameter of {cls.__name__}: choose from {listed}")
    given = single_values_in_lists(cls, given)
    if source is not None:
        given = number_classes(option, cls, given, source)
    try:
        part = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), given))
    except MissingMandatoryValue as error:
        missing = str(error.full_key)
        raise UserError(f"{option}.{missing} is not set: add {option}.{missing}=…") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{option}.{error.full_key}: {reason(error)}") from error
    assert isinstance(part, kind)
    _check_conversions(option, given, part)
    check_bounds(option, part)
    return part


def build_chosen(
    nodes: DictConfig, kind: type[Part], option: str, source: Source | None = None
) -> dict[str, Part]:
    """Return the chosen components of a group that allows several, by name.

    A preset may set options of a component that is not chosen. Such a node has no `_target_`, and is
    left out. Raise UserError, as `build`, also for a file whose options are not those of one component.
    """
    if option in PACKAGES and "_target_" in nodes:
        raise UserError(lacks_package(option, "<name>"))
    return {
        name: build(node, kind, f"{option}.{name}", source)
        for name, node in ((str(key), nodes[key]) for key in nodes)
        if "_target_" in node
    }


def class_of(node: Any, kind: type[Part], option: str) -> type[Part]:
    """Return the class that a configuration node names by `_target_`.

    Raise UserError, naming the option, if that is not a component of this kind.
    """
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(
            f"{option} has no _target_: choose an option that exists, or name a class with "
            f"{option}._target_=module.Class"
        )
    target = str(node["_target_"])
    require_allowed(option, target)
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except Exception as error:  # the import may raise any exception
        why = blamed(error) or reason(error)
        raise UserError(
            f"{option}: cannot import {target} ({why}): correct the module, its name in "
            f"{option}._target_, or PYTHONPATH"
        ) from error
    base = f"{kind.__module__}.{kind.__name__}"
    if not (isinstance(cls, type) and issubclass(cls, kind) and is_dataclass(cls)):
        raise UserError(
            f"{option}: {target} is no {kind.__name__.lower()}: derive it from {base}, and put "
            "@dataclass(frozen=True) before it"
        )
    if undefined := list(_undefined(cls, kind)):
        raise UserError(f"{option}: {target} lacks {' and '.join(undefined)}, as {base} explains")
    found: type[Part] = cls
    return found


def _undefined(cls: type, kind: type) -> Iterator[str]:
    """Yield what a component must set or define, and does not: class variables without a value, and
    functions whose own version says that it is not implemented."""
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is ClassVar and not hasattr(cls, name):
            yield name
    for name, value in vars(kind).items():
        code = getattr(value, "__code__", None)
        if code and NotImplementedError.__name__ in code.co_names and getattr(cls, name) is value:
            yield f"{name}(…)"


def _check_conversions(option: str, given: Mapping[str, Any], part: Component) -> None:
    """Raise UserError for values that OmegaConf would convert to an unintended value."""
    for name, value in vars(part).items():
        if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
            raise UserError(f"{option}.{name}={value}: write one list of single values")
        number = given.get(name)
        if isinstance(value, bool) and isinstance(number, int | float) and number not in (0, 1):
            raise UserError(f"{option}.{name}={number}: write true or false")  # OmegaConf: true
