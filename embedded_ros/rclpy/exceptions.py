"""Errors of rclpy."""

from __future__ import annotations

from typing import Any


class NotInitializedException(Exception):
    """rclpy.init() was not called, or shutdown() was."""

    def __init__(self, *args: Any) -> None:
        super().__init__("rclpy.init() has not been called", *args)


class InvalidHandle(Exception):
    """The entity has been destroyed."""


class NameValidationException(Exception):
    """A node, topic or service name breaks the rules."""

    def __init__(self, name_type: str, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__(
            f"Invalid {name_type}: {error_msg}:\n  '{name}'\n   {' ' * invalid_index}^"
        )


class InvalidNodeNameException(NameValidationException):
    """A node name breaks the rules."""

    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("node name", name, error_msg, invalid_index)


class InvalidTopicNameException(NameValidationException):
    """A topic name breaks the rules."""

    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("topic name", name, error_msg, invalid_index)


class ParameterException(Exception):
    """Base of the parameter errors."""

    def __init__(self, error_msg: str, parameters: Any) -> None:
        super().__init__(f"{error_msg}: {parameters}")


class ParameterNotDeclaredException(ParameterException):
    """The parameter was not declared."""

    def __init__(self, parameters: Any) -> None:
        super().__init__("Invalid access to undeclared parameter(s)", parameters)


class ParameterAlreadyDeclaredException(ParameterException):
    """The parameter is declared already."""

    def __init__(self, parameters: Any) -> None:
        super().__init__("Parameter(s) already declared", parameters)


class InvalidParameterException(ParameterException):
    """The parameter's name is not allowed."""

    def __init__(self, parameter: Any) -> None:
        super().__init__("Invalid parameter name", parameter)


class InvalidParameterTypeException(ParameterException):
    """The value's type is not the declared one."""

    def __init__(self, desired: Any, expected_type: Any) -> None:
        super().__init__(
            f"Trying to set parameter '{desired.name}' to '{desired.value}' of type "
            f"'{desired.type_.name}', expecting type '{expected_type}'",
            desired.name,
        )


class InvalidParameterValueException(ParameterException):
    """A callback or a descriptor refused the value."""

    def __init__(self, parameter: Any, value: Any, reason: str) -> None:
        super().__init__(
            f"Invalid parameter value ({value}) for parameter. Reason: {reason}", parameter
        )
