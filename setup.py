"""Packages, metadata and dependencies, for pip and for colcon (ament_python)."""

import sys
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "amodal_ros"

# Ranges for users; constraints.txt holds the versions that were tested together. This is what the
# default model, the nodes, replay, evaluation and data sets need; its network runs in OpenVINO.
REQUIRES = [
    "av>=12",
    # Of embedded_ros; aarch64 has no wheel of it and needs ROS 2 itself.
    "cyclonedds>=0.10.5; platform_system == 'Linux' and platform_machine == 'x86_64'",
    "jinja2>=3.1",
    "numba>=0.60",
    "numpy>=1.26",
    "opencv-python-headless>=4.9",
    "openvino>=2024.4",
    "pillow>=10",
    "psutil>=5.9",
    "pycocotools>=2.0.7",
    "pydantic>=2.6",
    "pyyaml>=6.0",
    "rich>=13.7",
    "rosbags>=0.10.4",
    "safetensors>=0.4.3",
    "scipy>=1.11",
    "typer>=0.12",
]
# What only a part of the product needs (amodal_core/extras.py asks for it by these names).
TORCH = ["torch>=2.4", "torchvision>=0.19"]  # gigabytes, where pip takes the build for GPUs
EXTRAS = {
    "arrow": ["pyarrow>=15"],
    "export": [*TORCH, "onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.2"],
    "onnxruntime": ["onnxruntime>=1.18"],
    "plots": ["matplotlib>=3.8"],
    "sam": [*TORCH, "transformers>=5.0"],
    "supervision": ["supervision>=0.31"],
    "synth": ["moderngl>=5.10"],
    "torch": TORCH,  # every other model, and GPUs
    "train": [*TORCH, "scikit-learn>=1.4", "tensorboard>=2.14"],
}
EXTRAS["all"] = sorted({name for extra in EXTRAS.values() for name in extra})
# Beside TensorBoard, for who has an account or a server; no part of `all`.
EXTRAS["mlflow"] = ["mlflow-skinny>=2.14"]
EXTRAS["wandb"] = ["wandb>=0.17"]
# A cluster's machines need the same version: who has a cluster chooses it.
EXTRAS["ray"] = ["ray>=2.9"]
# 700 MB, for looking alone.
EXTRAS["views"] = ["rerun-sdk>=0.24"]
# Takes the place of onnxruntime, so that it is no part of `all`.
EXTRAS["tensorrt"] = [
    *TORCH,
    *("onnx>=1.16", "onnxruntime-gpu>=1.18", "onnxscript>=0.2", "tensorrt>=10"),
]
# colcon puts scripts beside the nodes, off the PATH, and only what lies in bin on it; pip all.
BY_PIP = {"bdist_wheel", "dist_info", "editable_wheel"} & set(sys.argv)
COMMAND = [] if BY_PIP else [("bin", ["scripts/amodal"])]
TOOLS = {
    "test": [
        *EXTRAS["all"],
        "hypothesis>=6.100",
        "mcap-ros2-support>=0.5",
        "pytest>=8",
        "pytest-benchmark>=4",
        "pytest-cov>=7",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
    ],
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
    "dev": ["mypy>=1.10", "ruff>=0.6", "types-PyYAML", "types-psutil"],
}

setup(
    name=PACKAGE,
    version="0.2.0",
    description="Amodal instance segmentation for vehicles, with or without ROS 2",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="the amodal_ros maintainers",
    python_requires=">=3.10",
    install_requires=REQUIRES,
    extras_require=EXTRAS | TOOLS,
    # A top-level package named `training` could be anybody's; amodal_ros/cli/_training.py finds it.
    packages=[
        *find_packages(include=["amodal_core*", "amodal_ros*", "embedded_ros*"]),
        "amodal_training",
    ],
    package_dir={"amodal_training": "training"},
    package_data={
        "": ["*.html", "*.yaml", "*.ttf", "*.glsl", "py.typed"],
        "amodal_core.views": ["fonts/LICENSE_DEJAVU", "fonts/*.ttf"],
        "amodal_core.models": ["weights/*.safetensors", "weights/*.onnx"],
        "amodal_training": ["configs/*/*.yaml", "slurm.sh"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", glob("config/*.*")),
        (f"share/{PACKAGE}/rviz", glob("rviz/*.rviz")),
        # The message definitions also travel with the wheel, for machines without ROS 2.
        (f"share/{PACKAGE}/msg", glob("amodal_msgs/msg/*.msg")),
        (f"share/{PACKAGE}/vision_msgs", glob("amodal_msgs/vision_msgs/msg/*.msg")),
        (f"share/{PACKAGE}/sample_drive", glob("data/sample_drive/*")),
        *COMMAND,
    ],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "amodal = amodal_ros.cli.main:main",
            "perception = amodal_ros.nodes.perception:main",
            "depth_projection = amodal_ros.nodes.depth_projection:main",
            "segmentation = amodal_ros.nodes.segmentation:main",
            "tracking = amodal_ros.nodes.tracking:main",
            "overlay = amodal_ros.nodes.overlay:main",
            "rviz_view = amodal_ros.nodes.rviz_view:main",
            "track_points = amodal_ros.nodes.track_points:main",
            "evaluation = amodal_ros.nodes.evaluation:main",
            "player = amodal_ros.nodes.player:main",
        ]
    },
)
