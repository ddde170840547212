"""Where packages keep their files."""

from .packages import PackageNotFoundError, get_package_prefix, get_package_share_directory

__all__ = ["PackageNotFoundError", "get_package_prefix", "get_package_share_directory"]
