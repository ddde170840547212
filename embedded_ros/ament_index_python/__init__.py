"""Where packages keep their files."""

from embedded_ros.importer import absent_attribute

from .packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
    get_package_share_path,
)

__getattr__ = absent_attribute(__name__)
__all__ = [
    "PackageNotFoundError",
    "get_package_prefix",
    "get_package_share_directory",
    "get_package_share_path",
]
