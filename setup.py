"""Installs the packages for pip and colcon (ament_python); the metadata is in pyproject.toml."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "amodal_ros"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=["amodal_core*", "amodal_ros*", "embedded_ros*", "training*"]),
    include_package_data=True,
    package_data={"": ["*.html", "*.yaml", "*.ttf", "*.glsl", "*.vert", "*.frag", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", glob("config/*.yaml")),
        (f"share/{PACKAGE}/rviz", glob("rviz/*.rviz")),
        # The message definitions also travel with the wheel, for machines without ROS 2.
        (f"share/{PACKAGE}/msg", glob("amodal_msgs/msg/*.msg")),
        (f"share/{PACKAGE}/vision_msgs", glob("amodal_msgs/vision_msgs/msg/*.msg")),
    ],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "amodal = amodal_ros.cli.main:main",
            "depth_projection = amodal_ros.nodes.depth_projection:main",
            "segmentation = amodal_ros.nodes.segmentation:main",
            "tracking = amodal_ros.nodes.tracking:main",
            "overlay = amodal_ros.nodes.overlay:main",
            "evaluation = amodal_ros.nodes.evaluation:main",
        ]
    },
)
