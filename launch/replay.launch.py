"""A bag through the running pipeline, measured: pipeline.launch.py with evaluation."""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """All other arguments of pipeline.launch.py are valid here, too."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="[Bag] bag to play; the launch ends with it"),
            DeclareLaunchArgument(
                "evaluation",
                default_value="true",
                description="[Views and measures] measure latency, drops and accuracy",
            ),
            DeclareLaunchArgument(
                "out",
                default_value="build/live",
                description="[Views and measures] folder for metrics.json",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    str(Path(__file__).resolve().parent / "pipeline.launch.py")
                ),
                launch_arguments=[
                    (name, LaunchConfiguration(name)) for name in ("bag", "evaluation", "out")
                ],
            ),
        ]
    )
