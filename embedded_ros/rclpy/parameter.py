"""Parameters: a name, a type and a value, and their message form."""

from __future__ import annotations

import array
from enum import Enum
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue

_SEQUENCES = (list, tuple, array.array)
# The Python type of a value, or of an array's elements.
_KINDS = {"BOOL": bool, "INTEGER": int, "DOUBLE": float, "STRING": str, "BYTE": bytes}


class Parameter:
    """A parameter; immutable."""

    class Type(Enum):
        """Types of parameters."""

        NOT_SET = ParameterType.PARAMETER_NOT_SET
        BOOL = ParameterType.PARAMETER_BOOL
        INTEGER = ParameterType.PARAMETER_INTEGER
        DOUBLE = ParameterType.PARAMETER_DOUBLE
        STRING = ParameterType.PARAMETER_STRING
        BYTE_ARRAY = ParameterType.PARAMETER_BYTE_ARRAY
        BOOL_ARRAY = ParameterType.PARAMETER_BOOL_ARRAY
        INTEGER_ARRAY = ParameterType.PARAMETER_INTEGER_ARRAY
        DOUBLE_ARRAY = ParameterType.PARAMETER_DOUBLE_ARRAY
        STRING_ARRAY = ParameterType.PARAMETER_STRING_ARRAY

        @classmethod
        def from_parameter_value(cls, parameter_value: Any) -> Parameter.Type:
            """The type of a Python value.

            Raises:
                TypeError: no parameter can hold it.
            """
            # An empty sequence fits the first array type, as in rclpy.
            for kind in cls:
                if kind.check(parameter_value):
                    return kind
            raise TypeError(f"The given value is not one of the allowed types '{parameter_value}'.")

        def check(self, parameter_value: Any) -> bool:
            """Whether a value is of this type."""
            if self is Parameter.Type.NOT_SET:
                return parameter_value is None
            kind = _KINDS[self.name.removesuffix("_ARRAY")]
            if not self.name.endswith("_ARRAY"):
                return _is(kind, parameter_value)
            return isinstance(parameter_value, _SEQUENCES) and all(
                _is(kind, item) for item in parameter_value
            )

    def __init__(self, name: str, type_: Parameter.Type | None = None, value: Any = None) -> None:
        if type_ is None:
            type_ = Parameter.Type.from_parameter_value(value)
        if not type_.check(value):
            raise ValueError(f"Type '{type_}' and value '{value}' do not agree")
        self._name, self._type, self._value = name, type_, value

    @classmethod
    def from_parameter_msg(cls, param_msg: Any) -> Parameter:
        """From a rcl_interfaces/Parameter."""
        kind = Parameter.Type(param_msg.value.type)
        if kind is Parameter.Type.NOT_SET:
            return cls(param_msg.name, kind)
        value = getattr(param_msg.value, f"{kind.name.lower()}_value")
        return cls(param_msg.name, kind, list(value) if kind.name.endswith("_ARRAY") else value)

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def type_(self) -> Parameter.Type:
        """Its type."""
        return self._type

    @property
    def value(self) -> Any:
        """Its value; None where not set."""
        return self._value

    def __repr__(self) -> str:
        return f"Parameter(name={self.name!r}, type_={self.type_}, value={self.value!r})"

    def get_parameter_value(self) -> Any:
        """Its value as a rcl_interfaces/ParameterValue."""
        message = ParameterValue(type=self.type_.value)
        if self.type_ is not Parameter.Type.NOT_SET:
            value = list(self.value) if isinstance(self.value, tuple) else self.value
            setattr(message, f"{self.type_.name.lower()}_value", value)
        return message

    def to_parameter_msg(self) -> Any:
        """A rcl_interfaces/Parameter."""
        return ParameterMsg(name=self.name, value=self.get_parameter_value())


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
