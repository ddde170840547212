"""A node's parameters: declaration, checks, callbacks, services and events."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    ListParametersResult,
    ParameterDescriptor,
    ParameterEvent,
    ParameterValue,
    SetParametersResult,
)
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)

from .exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from .parameter import Parameter, parameter_value_to_python
from .qos import qos_profile_parameters

_NOT_SET = Parameter.Type.NOT_SET
_REL_TOL = 1e-6
_Check = Callable[[list[Parameter]], Any]


def _refused(reason: str) -> Any:
    return SetParametersResult(successful=False, reason=reason)


def _check_range(parameter: Parameter, descriptor: Any) -> str:
    """Why the value is out of the descriptor's range; empty where it is not."""
    kind, value = parameter.type_, parameter.value
    if kind is Parameter.Type.INTEGER and descriptor.integer_range:
        limits = descriptor.integer_range[0]
    elif kind is Parameter.Type.DOUBLE and descriptor.floating_point_range:
        limits = descriptor.floating_point_range[0]
    else:
        return ""
    low, high = sorted((limits.from_value, limits.to_value))

    def near(a: float, b: float) -> bool:
        return a == b if isinstance(value, int) else math.isclose(a, b, rel_tol=_REL_TOL)

    shown = f"Min: {low}, Max: {high}, value: {value}"
    if near(value, low) or near(value, high):
        return ""
    if not low < value < high:
        return f"Parameter {parameter.name} out of range. {shown}"
    step = limits.step
    if step and not near(low + round((value - low) / step) * step, value):
        return (
            f"The parameter value for {parameter.name} is not a valid step. {shown}, step: {step}"
        )
    return ""


class NodeParameters:
    """The part of Node that deals with parameters."""

    _allow_undeclared_parameters: bool

    def _init_parameters(self, overrides: dict[str, Parameter], allow_undeclared: bool) -> None:
        self._parameters: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._parameter_overrides = overrides
        self._allow_undeclared_parameters = allow_undeclared
        self._pre_set: list[_Check] = []
        self._on_set: list[_Check] = []
        self._post_set: list[_Check] = []

    def declare_parameter(
        self,
        name: str,
        value: Any = None,
        descriptor: Any = None,
        ignore_override: bool = False,
    ) -> Parameter:
        """Declare a parameter; what the command line or a file says replaces the default.

        Args:
            name: its name.
            value: default value, or a Parameter.Type for one without a default.
            descriptor: ParameterDescriptor.
            ignore_override: keep the default.

        Raises:
            ParameterAlreadyDeclaredException: it is declared.
            InvalidParameterException: the name is not allowed.
            InvalidParameterTypeException: an override is of another type.
            InvalidParameterValueException: the value is out of range or a callback refuses it.
        """
        entry = (name, value, descriptor or ParameterDescriptor())
        return self.declare_parameters("", [entry], ignore_override)[0]

    def declare_parameters(
        self,
        namespace: str,
        parameters: Sequence[tuple[Any, ...]],
        ignore_override: bool = False,
    ) -> list[Parameter]:
        """Declare (name, value, descriptor) tuples as namespace.name; see declare_parameter."""
        declared = []
        for name, value, descriptor in ((*p, None, None)[:3] for p in parameters):
            name = f"{namespace}.{name}" if namespace else name
            descriptor = descriptor or ParameterDescriptor()
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
                raise InvalidParameterException(name)
            if name in self._parameters:
                raise ParameterAlreadyDeclaredException([name])
            if isinstance(value, Parameter.Type):
                if value is _NOT_SET or descriptor.dynamic_typing:
                    raise ValueError(f"parameter {name} needs one static type")
                descriptor.type, value = value.value, None
            elif not descriptor.dynamic_typing:
                if isinstance(value, ParameterValue):
                    value = parameter_value_to_python(value)
                descriptor.type = Parameter.Type.from_parameter_value(value).value
                if descriptor.type == _NOT_SET.value:
                    raise ValueError(
                        "Cannot declare a statically typed parameter with default value of type "
                        "PARAMETER_NOT_SET"
                    )
            override = self._parameter_overrides.get(name)
            if override is not None and not ignore_override:
                value = override.value
            parameter = Parameter(name, value=value)
            if parameter.type_ is Parameter.Type.BYTE_ARRAY and not value:
                # An empty list may be of any array type.
                parameter = Parameter(name, Parameter.Type(descriptor.type), value)
            descriptor.name = name
            result = self._store([parameter], {name: descriptor})
            if result.reason.startswith("Wrong parameter type"):
                expected = Parameter.Type(descriptor.type).name
                raise InvalidParameterTypeException(parameter, expected)
            if not result.successful:
                raise InvalidParameterValueException(name, value, result.reason)
            declared.append(parameter)
        return declared

    def undeclare_parameter(self, name: str) -> None:
        """Forget a parameter."""
        if name not in self._parameters:
            raise ParameterNotDeclaredException(name)
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(name)
        del self._parameters[name], self._descriptors[name]

    def has_parameter(self, name: str) -> bool:
        """Whether it is declared."""
        return name in self._parameters

    def get_parameter(self, name: str) -> Parameter:
        """A parameter.

        Raises:
            ParameterNotDeclaredException: it is not declared.
            ParameterUninitializedException: it was declared by type and has no value.
        """
        if name in self._parameters:
            found = self._parameters[name]
            if found.type_ is _NOT_SET and not self._descriptors[name].dynamic_typing:
                raise ParameterUninitializedException(name)
            return found
        if self._allow_undeclared_parameters:
            return Parameter(name, _NOT_SET, None)
        raise ParameterNotDeclaredException(name)

    def get_parameters(self, names: Sequence[str]) -> list[Parameter]:
        """Parameters; see get_parameter."""
        return [self.get_parameter(name) for name in names]

    def get_parameter_or(self, name: str, alternative_value: Parameter | None = None) -> Parameter:
        """A parameter, or the alternative where it has no value."""
        found = self._parameters.get(name)
        if found is None or found.type_ is _NOT_SET:
            return alternative_value or Parameter(name, _NOT_SET)
        return found

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        """Parameters named prefix.*, by the rest of their names."""
        start = f"{prefix}." if prefix else ""
        return {n[len(start) :]: p for n, p in self._parameters.items() if n.startswith(start)}

    def get_parameter_type(self, name: str) -> Any:
        """A parameter's type as a number of ParameterType."""
        if name not in self._parameters and not self._allow_undeclared_parameters:
            raise ParameterNotDeclaredException(name)
        found = self._parameters.get(name)
        return found.type_.value if found else _NOT_SET.value

    def get_parameter_types(self, names: Sequence[str]) -> list[Any]:
        """Types of parameters; see get_parameter_type."""
        return [self.get_parameter_type(name) for name in names]

    def describe_parameter(self, name: str) -> Any:
        """A parameter's descriptor."""
        if name in self._descriptors:
            return self._descriptors[name]
        if self._allow_undeclared_parameters:
            return ParameterDescriptor()
        raise ParameterNotDeclaredException(name)

    def describe_parameters(self, names: Sequence[str]) -> list[Any]:
        """Descriptors of parameters."""
        return [self.describe_parameter(name) for name in names]

    def set_parameters(self, parameter_list: Sequence[Parameter]) -> list[Any]:
        """Set parameters one by one; a SetParametersResult each."""
        return [self.set_parameters_atomically([p]) for p in parameter_list]

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter]) -> Any:
        """Set all parameters or none; a SetParametersResult.

        Raises:
            ParameterNotDeclaredException: one is not declared.
        """
        parameters = list(parameter_list)
        if self._pre_set:
            parameters = [p for call in self._pre_set for p in call(parameters)]
            if not parameters:
                return _refused(
                    "parameter list cannot be empty, this might be due to "
                    "pre_set_parameters_callback modifying the original parameters list."
                )
        unknown = [p.name for p in parameters if p.name not in self._parameters]
        if unknown and not self._allow_undeclared_parameters:
            raise ParameterNotDeclaredException(unknown)
        for parameter in parameters:
            if parameter.name in self._parameters and self._descriptors[parameter.name].read_only:
                return _refused(f"Trying to set a read-only parameter: {parameter.name}.")
        return self._store(parameters, {})

    def add_pre_set_parameters_callback(self, callback: _Check) -> None:
        """Let a callback replace the list of parameters before they are checked."""
        self._pre_set.insert(0, callback)

    def add_on_set_parameters_callback(self, callback: _Check) -> None:
        """Let a callback accept or refuse parameters with a SetParametersResult."""
        self._on_set.insert(0, callback)

    def add_post_set_parameters_callback(self, callback: _Check) -> None:
        """Tell a callback of parameters that were set."""
        self._post_set.insert(0, callback)

    def remove_pre_set_parameters_callback(self, callback: _Check) -> None:
        """Undo add_pre_set_parameters_callback."""
        self._pre_set.remove(callback)

    def remove_on_set_parameters_callback(self, callback: _Check) -> None:
        """Undo add_on_set_parameters_callback."""
        self._on_set.remove(callback)

    def remove_post_set_parameters_callback(self, callback: _Check) -> None:
        """Undo add_post_set_parameters_callback."""
        self._post_set.remove(callback)

    def _store(self, parameters: list[Parameter], declaring: dict[str, Any]) -> Any:
        """Check and set parameters, and tell everyone."""
        for parameter in parameters:
            descriptor = declaring.get(parameter.name) or self._descriptors.get(parameter.name)
            reason = self._check(parameter, descriptor) if descriptor is not None else ""
            if reason:
                return _refused(reason)
        for callback in self._on_set:
            result = callback(parameters)
            if not isinstance(result, SetParametersResult):
                raise TypeError(f"{callback} must return SetParametersResult, got {result!r}")
            if not result.successful:
                return result
        event = ParameterEvent(node=self.get_fully_qualified_name())  # type: ignore[attr-defined]
        for parameter in parameters:
            name, message = parameter.name, parameter.to_parameter_msg()
            before = self._parameters.get(name)
            if parameter.type_ is _NOT_SET and not declaring:
                event.deleted_parameters.append(message)
                self._parameters.pop(name, None)
                self._descriptors.pop(name, None)
                continue
            descriptor = declaring.get(name) or self._descriptors.get(name)
            if descriptor is None:
                descriptor = ParameterDescriptor(name=name, dynamic_typing=True)
            if descriptor.dynamic_typing:
                descriptor.type = parameter.type_.value
            self._descriptors[name] = descriptor
            self._parameters[name] = parameter
            new = before is None or before.type_ is _NOT_SET
            (event.new_parameters if new else event.changed_parameters).append(message)
        for callback in self._post_set:
            callback(parameters)
        self._publish_parameter_event(event)
        return SetParametersResult(successful=True)

    def _publish_parameter_event(self, event: Any) -> None:
        raise NotImplementedError

    def _check(self, parameter: Parameter, descriptor: Any) -> str:
        if not descriptor.dynamic_typing:
            if parameter.type_ is _NOT_SET:
                declared = parameter.name in self._parameters
                return "Static parameter cannot be undeclared" if declared else ""
            if parameter.type_.value != descriptor.type:
                return (
                    f"Wrong parameter type, expected '{Parameter.Type(descriptor.type)}' "
                    f"got '{parameter.type_}'"
                )
        return _check_range(parameter, descriptor)

    def list_parameters(self, prefixes: Sequence[str], depth: int) -> Any:
        """Names below the prefixes, as a ListParametersResult; depth 0 is unlimited."""
        result = ListParametersResult()
        for name in self._parameters:
            if prefixes:
                below = [
                    name[len(p) + 1 :] for p in prefixes if name == p or name.startswith(f"{p}.")
                ]
            else:
                below = [name]
            if not any(depth == 0 or rest.count(".") < depth for rest in below):
                continue
            result.names.append(name)
            prefix = name.rpartition(".")[0]
            if prefix and prefix not in result.prefixes:
                result.prefixes.append(prefix)
        return result

    def _start_parameter_services(self) -> None:
        def get(request: Any, response: Any) -> Any:
            try:
                found = self.get_parameters(request.names)
            except (ParameterNotDeclaredException, ParameterUninitializedException):
                found = []
            response.values = [p.get_parameter_value() for p in found]
            return response

        def types(request: Any, response: Any) -> Any:
            try:
                response.types = self.get_parameter_types(request.names)
            except ParameterNotDeclaredException:
                response.types = []
            return response

        def describe(request: Any, response: Any) -> Any:
            try:
                response.descriptors = self.describe_parameters(request.names)
            except ParameterNotDeclaredException:
                response.descriptors = []
            return response

        def names(request: Any, response: Any) -> Any:
            response.result = self.list_parameters(request.prefixes, request.depth)
            return response

        def attempt(messages: Sequence[Any]) -> Any:
            try:
                return self.set_parameters_atomically(
                    [Parameter.from_parameter_msg(m) for m in messages]
                )
            except (ParameterNotDeclaredException, ValueError) as error:
                return _refused(str(error))

        def set_each(request: Any, response: Any) -> Any:
            response.results = [attempt([message]) for message in request.parameters]
            return response

        def set_all(request: Any, response: Any) -> Any:
            response.result = attempt(request.parameters)
            return response

        served: list[tuple[Any, str, Any]] = [
            (DescribeParameters, "describe_parameters", describe),
            (GetParameters, "get_parameters", get),
            (GetParameterTypes, "get_parameter_types", types),
            (ListParameters, "list_parameters", names),
            (SetParameters, "set_parameters", set_each),
            (SetParametersAtomically, "set_parameters_atomically", set_all),
        ]
        for kind, name, callback in served:
            self.create_service(  # type: ignore[attr-defined]
                kind, f"~/{name}", callback, qos_profile=qos_profile_parameters
            )
