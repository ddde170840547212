"""A node's parameters: declaration, checks, callbacks, services and events."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    ListParametersResult,
    ParameterDescriptor,
    ParameterEvent,
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

from embedded_ros.importer import Partial, refuse

from .exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterNotDeclaredException,
)
from .parameter import Parameter
from .qos import qos_profile_parameters

_NOT_SET = Parameter.Type.NOT_SET
_REL_TOL = 1e-6
_Check = Callable[[list[Parameter]], Any]


def _refused(reason: str) -> Any:
    return SetParametersResult(successful=False, reason=reason)


def _check(parameter: Parameter, descriptor: Any) -> str:
    """Why a descriptor does not allow the value; empty where it does."""
    kind, value = parameter.type_, parameter.value
    if kind is _NOT_SET:
        return "Static parameter cannot be undeclared"
    if kind.value != descriptor.type:
        expected = Parameter.Type(descriptor.type)
        return f"Wrong parameter type, expected '{expected}' got '{kind}'"
    ranges = {
        Parameter.Type.INTEGER: descriptor.integer_range,
        Parameter.Type.DOUBLE: descriptor.floating_point_range,
    }.get(kind)
    if not ranges:
        return ""
    low, high = sorted((ranges[0].from_value, ranges[0].to_value))

    def near(a: float, b: float) -> bool:
        return a == b if isinstance(value, int) else math.isclose(a, b, rel_tol=_REL_TOL)

    shown = f"Min: {low}, Max: {high}, value: {value}"
    if near(value, low) or near(value, high):
        return ""
    if not low < value < high:
        return f"Parameter {parameter.name} out of range. {shown}"
    step = ranges[0].step
    if step and not near(low + round((value - low) / step) * step, value):
        return (
            f"The parameter value for {parameter.name} is not a valid step. {shown}, step: {step}"
        )
    return ""


class NodeParameters(Partial):
    """The part of Node that deals with parameters; each has one type, by its default."""

    # Of the node.
    create_service: Callable[..., Any]
    get_fully_qualified_name: Callable[[], str]
    _publish_parameter_event: Callable[[Any], None]

    def __init__(self, overrides: dict[str, Parameter]) -> None:
        self._parameters: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._parameter_overrides = overrides
        self._on_set: list[_Check] = []
        self._post_set: list[_Check] = []

    def declare_parameter(
        self, name: str, value: Any = None, descriptor: Any = None, ignore_override: bool = False
    ) -> Parameter:
        """Declare a parameter; what the command line or a file says replaces the default.

        Args:
            name: its name.
            value: default value.
            descriptor: ParameterDescriptor.
            ignore_override: keep the default.

        Raises:
            ParameterAlreadyDeclaredException: it is declared.
            InvalidParameterException: the name is not allowed.
            InvalidParameterTypeException: an override is of another type.
            InvalidParameterValueException: the value is out of range or a callback refuses it.
        """
        descriptor = descriptor or ParameterDescriptor()
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w./]*", name):
            raise InvalidParameterException(name)
        if name in self._parameters:
            raise ParameterAlreadyDeclaredException([name])
        if isinstance(value, Parameter.Type) or descriptor.dynamic_typing:
            refuse("rclpy.node.Node.declare_parameter without a default value")
        descriptor.name = name
        descriptor.type = Parameter.Type.from_parameter_value(value).value
        override = self._parameter_overrides.get(name)
        if override is not None and not ignore_override:
            value = override.value
        parameter = Parameter(name, value=value)
        if parameter.type_ is Parameter.Type.BYTE_ARRAY and not value:
            # An empty list may be of any array type.
            parameter = Parameter(name, Parameter.Type(descriptor.type), value)
        result = self._store([parameter], {name: descriptor})
        if result.reason.startswith("Wrong parameter type"):
            expected = Parameter.Type(descriptor.type).name
            raise InvalidParameterTypeException(parameter, expected)
        if not result.successful:
            raise InvalidParameterValueException(name, value, result.reason)
        return parameter

    def has_parameter(self, name: str) -> bool:
        """Whether it is declared."""
        return name in self._parameters

    def get_parameter(self, name: str) -> Parameter:
        """A parameter.

        Raises:
            ParameterNotDeclaredException: it is not declared.
        """
        if name not in self._parameters:
            raise ParameterNotDeclaredException(name)
        return self._parameters[name]

    def get_parameters(self, names: Sequence[str]) -> list[Parameter]:
        """Parameters; see get_parameter."""
        return [self.get_parameter(name) for name in names]

    def describe_parameter(self, name: str) -> Any:
        """A parameter's descriptor; see get_parameter."""
        return self._descriptors[self.get_parameter(name).name]

    def describe_parameters(self, names: Sequence[str]) -> list[Any]:
        """Descriptors of parameters; see get_parameter."""
        return [self.describe_parameter(name) for name in names]

    def get_parameter_types(self, names: Sequence[str]) -> list[Any]:
        """Types of parameters as numbers of ParameterType; see get_parameter."""
        return [parameter.type_.value for parameter in self.get_parameters(names)]

    def set_parameters(self, parameter_list: Sequence[Parameter]) -> list[Any]:
        """Set parameters one by one; a SetParametersResult each."""
        return [self.set_parameters_atomically([p]) for p in parameter_list]

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter]) -> Any:
        """Set all parameters or none; a SetParametersResult.

        Raises:
            ParameterNotDeclaredException: one is not declared.
        """
        unknown = [p.name for p in parameter_list if p.name not in self._parameters]
        if unknown:
            raise ParameterNotDeclaredException(unknown)
        for parameter in parameter_list:
            if self._descriptors[parameter.name].read_only:
                return _refused(f"Trying to set a read-only parameter: {parameter.name}.")
        return self._store(list(parameter_list), self._descriptors)

    def add_on_set_parameters_callback(self, callback: _Check) -> None:
        """Let a callback accept or refuse parameters with a SetParametersResult."""
        self._on_set.insert(0, callback)

    def add_post_set_parameters_callback(self, callback: _Check) -> None:
        """Tell a callback of parameters that were set."""
        self._post_set.insert(0, callback)

    def _store(self, parameters: list[Parameter], descriptors: dict[str, Any]) -> Any:
        """Check and set parameters, and tell everyone."""
        for parameter in parameters:
            if reason := _check(parameter, descriptors[parameter.name]):
                return _refused(reason)
        for callback in self._on_set:
            result = callback(parameters)
            if not isinstance(result, SetParametersResult):
                raise TypeError(f"{callback} must return SetParametersResult, got {result!r}")
            if not result.successful:
                return result
        event = ParameterEvent(node=self.get_fully_qualified_name())
        for parameter in parameters:
            declared = parameter.name in self._parameters
            changes = event.changed_parameters if declared else event.new_parameters
            changes.append(parameter.to_parameter_msg())
            self._parameters[parameter.name] = parameter
            self._descriptors[parameter.name] = descriptors[parameter.name]
        for callback in self._post_set:
            callback(parameters)
        self._publish_parameter_event(event)
        return SetParametersResult(successful=True)

    def list_parameters(self, prefixes: Sequence[str], depth: int) -> Any:
        """Names below the prefixes, as a ListParametersResult; depth 0 is unlimited."""
        result = ListParametersResult()
        for name in self._parameters:
            below = [name[len(p) + 1 :] for p in prefixes if f"{name}.".startswith(f"{p}.")]
            rests = below if prefixes else [name]
            if not any(depth == 0 or rest.count(".") < depth for rest in rests):
                continue
            result.names.append(name)
            prefix = name.rpartition(".")[0]
            if prefix and prefix not in result.prefixes:
                result.prefixes.append(prefix)
        return result

    def _start_parameter_services(self) -> None:
        def attempt(messages: Sequence[Any]) -> Any:
            try:
                parameters = [Parameter.from_parameter_msg(m) for m in messages]
                return self.set_parameters_atomically(parameters)
            except (ParameterNotDeclaredException, ValueError) as error:
                return _refused(str(error))

        def values(names: Sequence[str]) -> list[Any]:
            return [p.get_parameter_value() for p in self.get_parameters(names)]

        # Service, field of its response, what fills it.
        served: list[tuple[Any, str, Callable[[Any], Any]]] = [
            (DescribeParameters, "descriptors", lambda r: self.describe_parameters(r.names)),
            (GetParameters, "values", lambda r: values(r.names)),
            (GetParameterTypes, "types", lambda r: self.get_parameter_types(r.names)),
            (ListParameters, "result", lambda r: self.list_parameters(r.prefixes, r.depth)),
            (SetParameters, "results", lambda r: [attempt([message]) for message in r.parameters]),
            (SetParametersAtomically, "result", lambda r: attempt(r.parameters)),
        ]
        for kind, field, fill in served:
            # GetParameters is served as get_parameters.
            name = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", kind.__name__).lower()
            callback = _answering(field, fill)
            self.create_service(kind, f"~/{name}", callback, qos_profile=qos_profile_parameters)


def _answering(field: str, fill: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def answer(request: Any, response: Any) -> Any:
        # Where one is not declared, the empty response says so, as in rclpy.
        with contextlib.suppress(ParameterNotDeclaredException):
            setattr(response, field, fill(request))
        return response

    return answer
