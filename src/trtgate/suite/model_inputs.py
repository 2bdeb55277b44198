"""What a module is called with: positional and keyword arguments, nested as `forward` takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError
from ..common.text_columns import first_few
from . import pytree_classes
from .declared_values import kind_of

CONSTANTS = (type(None), bool, int, float, str)
"""Classes of leaves that are no tensors; a compiled module may have their values baked in."""
MOST_NAMED = 6


class Inputs(msgspec.Struct, frozen=True, eq=False):
    """Arguments of one call. Their leaves are tensors and constants; it is a pytree node itself.

    A tensor that appears twice stays one through `mapped`.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensor leaves, in order."""
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    @property
    def leaves(self) -> list[Any]:
        """The tensors and constants, in order."""
        return pytree.tree_leaves(self)

    @property
    def shapes(self) -> str:
        """The shapes of the tensors, as a message shows them."""
        return ", ".join(str(tuple(value.shape)) for value in self.tensors) or "none"

    @property
    def others(self) -> list[str]:
        """The paths of what is no tensor in a positional argument of its own."""
        plain = {f"args[{number}]" for number, one in enumerate(self.args) if isinstance(one, torch.Tensor)}
        return [path for path, _ in self.named() if path not in plain]

    def named(self) -> list[tuple[str, Any]]:
        """Return the leaves in order, each with its path, as `args[0]["user"]`, or `mask` for a keyword argument."""
        try:
            return [(path_text(path), leaf) for path, leaf in pytree.tree_leaves_with_path(self)]
        except ValueError:  # of a class that was registered without keys
            return [(f"leaf {number}", leaf) for number, leaf in enumerate(pytree.tree_leaves(self))]

    @property
    def constants(self) -> str:
        """The structure and the leaves that are no tensors, as a text."""
        leaves, structure = pytree.tree_flatten(self)
        return f"{structure!r} {['*' if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]!r}"

    def mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
        """Return these with what the function makes of each tensor, once of a tensor that appears twice."""
        made: dict[int, torch.Tensor] = {}

        def once(value: torch.Tensor) -> torch.Tensor:
            if id(value) not in made:
                made[id(value)] = function(value)
            return made[id(value)]

        found: Inputs = pytree.tree_map_only(torch.Tensor, once, self)
        return found

    def filled(self, tensors: Iterable[torch.Tensor]) -> Inputs:
        """Return these with other tensors, one for each of `tensors`, in order."""
        given = iter(tensors)
        found: Inputs = pytree.tree_map_only(torch.Tensor, lambda _value: next(given), self)
        return found

    def check_plain(self, frontend: str) -> None:
        """Raise TrtgateError for what a frontend can't take that knows tensors as positional arguments only."""
        if self.others:
            raise TrtgateError(
                f"{frontend} takes tensors as positional arguments only, and these inputs have "
                f"{first_few(self.others, MOST_NAMED)}: take the frontend dynamo or torch_compile"
            )

    def cloned(self) -> Inputs:
        """Return these with tensors of their own."""
        return self.mapped(lambda value: value.detach().clone())

    @property
    def containers(self) -> dict[str, Any]:
        """The arguments that hold other values, by name: `input args[1]`, or `input cache` for a keyword argument."""
        named = {f"args[{number}]": one for number, one in enumerate(self.args)} | self.kwargs
        return {f"input {name}": one for name, one in named.items() if not pytree.tree_is_leaf(one)}

    def fresh(self) -> Inputs:
        """Return the same leaves in containers of their own: a call may put others into those that it is given."""
        return self.mapped(lambda value: value) if self.containers else self

    def rewritten(self, given: Inputs) -> list[str]:
        """Return the names of the containers that a call changed, which was `given` these as `fresh` returns them."""
        now = given.containers
        return [name for name, one in self.containers.items() if not _same_leaves(one, now[name])]

    def call(self, function: Callable[..., Any]) -> Any:
        """Return what a function makes of these arguments; their containers stay as they are."""
        return self.fresh().given_to(function)

    def given_to(self, function: Callable[..., Any]) -> Any:
        """Return `function(*args, **kwargs)`."""
        return function(*self.args, **self.kwargs)


def _same_leaves(before: Any, now: Any) -> bool:
    """Whether two containers have one structure, the same tensors, and equal constants."""
    leaves, structure = pytree.tree_flatten(before)
    others, other_structure = pytree.tree_flatten(now)
    return bool(structure == other_structure) and all(
        one is other or (type(one) in CONSTANTS and type(one) is type(other) and one == other)
        for one, other in zip(leaves, others, strict=True)
    )


def _flattened(inputs: Inputs) -> tuple[list[Any], None]:
    return [inputs.args, inputs.kwargs], None


def _flattened_with_keys(inputs: Inputs) -> tuple[list[tuple[Any, Any]], None]:
    return [(pytree.GetAttrKey("args"), inputs.args), (pytree.GetAttrKey("kwargs"), inputs.kwargs)], None


pytree.register_pytree_node(
    Inputs,
    _flattened,
    lambda children, _context: Inputs(*children),
    serialized_type_name="trtgate.Inputs",
    flatten_with_keys_fn=_flattened_with_keys,
)


def of_factory(made: Any, name: str) -> tuple[torch.nn.Module, Inputs]:
    """Return module and inputs of what a factory returned: (module, inputs) or (module, args, kwargs).

    `inputs` and `args` are as `of_value` has them. Raises TrtgateError, which begins with `name`, for anything else,
    for leaves of other classes, and for arguments that `forward` does not take.
    """
    whole = isinstance(made, tuple | list) and len(made) in (2, 3)
    if not whole or not isinstance(made[0], torch.nn.Module):
        first = made[0] if whole else made
        hint = f", with {kind_of(first)}" if isinstance(first, type) else ""
        if whole and not hint and callable(first):
            hint = "; a callable that is no module is a case of the frontend 'own' alone"
        raise TrtgateError(
            f"{name}: its factory must return (module, inputs) or (module, args, kwargs), not {_what(made)}{hint}"
        )
    inputs = of_value(made[1], name) if len(made) == 2 else of_arguments(made[1], made[2], name)
    check_call(made[0], inputs, name)
    return made[0], inputs


def of_value(value: Any, name: str) -> Inputs:
    """Return the arguments that a value stands for.

    A tuple or list: positional arguments, unless it is a class of its own. A mapping: keyword arguments, as
    `model(**tokens)` takes them. Anything else: one positional argument. Raises as `of_factory`.
    """
    if isinstance(value, Mapping):
        return _checked(Inputs((), _keywords(value, name)), name)
    return _checked(Inputs(_positional(value)), name)


def of_arguments(args: Any, kwargs: Any, name: str) -> Inputs:
    """Return positional arguments, a tuple, list or single value, with keyword arguments. Raises as `of_factory`."""
    if not isinstance(kwargs, Mapping):
        raise TrtgateError(
            f"{name}: of (module, args, kwargs), kwargs must be a mapping of names to values, not {_what(kwargs)}; "
            "several positional inputs are one tuple: (module, (x, mask))"
        )
    return _checked(Inputs(() if args is None else _positional(args), _keywords(kwargs, name)), name)


def _positional(value: Any) -> tuple[Any, ...]:
    return tuple(value) if type(value) in (tuple, list) else (value,)


def _keywords(value: Mapping[Any, Any], name: str) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise TrtgateError(
                f"{name}: a mapping of inputs is keyword arguments, and {key!r} is no name: write ({{…}},) for one "
                "dict as a positional argument"
            )
    return dict(value)


def _checked(inputs: Inputs, name: str) -> Inputs:
    try:
        pytree_classes.register_all(inputs, CONSTANTS)
        found: Inputs = pytree.tree_map_only(torch.Size, tuple, inputs)
        leaves = found.named()
    except TrtgateError as error:
        raise TrtgateError(f"{name}: {error}") from error
    except RecursionError as error:
        raise TrtgateError(f"{name}: its inputs are nested without end") from error
    for path, leaf in leaves:
        if not isinstance(leaf, torch.Tensor) and type(leaf) not in CONSTANTS:
            raise TrtgateError(
                f"{name}: its input {path} is {_what(leaf)}: inputs are tensors, None, bool, int, float and "
                f"str, in tuples, lists, mappings, dataclasses and registered pytree classes{_hint(leaf)}"
            )
    return found


def _hint(leaf: Any) -> str:
    if type(leaf).__module__.partition(".")[0] == "numpy":
        return "; torch.as_tensor makes a tensor of an array, .item() a number of a NumPy number"
    if isinstance(leaf, torch.nn.Module):
        return "; a module that another needs is an attribute of it"
    return ""


def path_text(path: tuple[Any, ...]) -> str:
    """Return a leaf's path as a message shows it: `args[0]["user"]`, or `mask` for a keyword argument."""
    first, *rest = path
    if getattr(first, "name", "") == "kwargs" and rest:
        head, *rest = rest
        return str(head.key) + "".join(map(_part, rest))
    return f"{getattr(first, 'name', 'input')}{''.join(map(_part, rest))}"


def _part(key: Any) -> str:
    if isinstance(key, pytree.MappingKey) and isinstance(key.key, str):
        return f'["{key.key}"]'
    return str(key)


def check_call(module: torch.nn.Module, inputs: Inputs, name: str) -> None:
    """Raise TrtgateError, which begins with `name`, for arguments that `forward` does not take.

    A module that changes its arguments before `forward` has them is not asked.
    """
    if module._forward_pre_hooks or type(module).__call__ is not torch.nn.Module.__call__:
        return
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return
    try:
        inputs.call(signature.bind)
    except TypeError as error:
        raise TrtgateError(f"{name}: {_unfit(signature, inputs, str(error))}") from error


def _hint_of_pair(args: tuple[Any, ...]) -> str:
    """Return what to write instead where arguments look like (args, kwargs), which is two positional ones."""
    match args:
        case (tuple() | list(), Mapping()):
            return (
                "; a tuple is positional arguments: write one mapping by name where some are keyword arguments, or let "
                "the factory return (module, args, kwargs)"
            )
    return ""


def _unfit(signature: inspect.Signature, inputs: Inputs, error: str) -> str:
    taken = first_few([str(one) for one in signature.parameters.values()], MOST_NAMED)
    takes = f"forward takes ({taken})"
    unknown = [one for one in inputs.kwargs if one not in signature.parameters]
    if not unknown:
        return f"its inputs do not fit forward: {error}; {takes}{_hint_of_pair(inputs.args)}"
    names = first_few([repr(one) for one in unknown], MOST_NAMED)
    if inputs.args:
        return f"forward takes no keyword argument {names}; {takes}"
    return (
        f"its inputs are a mapping, which is keyword arguments, and forward takes no {names}; {takes}; write "
        "({…},) for one dict as a positional argument"
    )


def _what(value: Any) -> str:
    kind = type(value)
    if isinstance(value, tuple | list) and kind in (tuple, list):
        return f"a {kind.__name__} of {len(value)}: {first_few([type(one).__name__ for one in value], MOST_NAMED)}"
    named = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if named[0] in 'aeiou' else 'a'} {named}"
