"""Messages to CDR bytes and back."""

from __future__ import annotations

from typing import Any

from embedded_ros import interfaces


def serialize_message(message: Any) -> bytes:
    """CDR bytes of a message."""
    return bytes(interfaces.serialize(message))


def deserialize_message(serialized_message: bytes, message_type: Any) -> Any:
    """A message from CDR bytes."""
    return interfaces.deserialize(serialized_message, message_type)
