"""`amodal doctor`: what is there, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NamedTuple
from xml.etree import ElementTree

import typer
from rich.console import Console
from rich.table import Table

from amodal_core.errors import InputError
from amodal_core.models.registry import DEFAULT, FALLBACK, shipped
from amodal_ros.domains import own_domain
from amodal_ros.middleware import CYCLONE, FAST_DDS

_BUFFER = 10 * 2**20  # bytes; a scan is 2 MB in fragments
_SEGMENT = 16 * 2**20  # bytes of Fast DDS' shared memory; a few images and scans
_SHARED = 512 * 2**20  # bytes of shared memory; some participants with the 64 MB of fastdds.xml
_LOOPBACK = """
import sys, time
import amodal_ros, rclpy
from std_msgs.msg import UInt64
rclpy.init()
node = rclpy.create_node("doctor_" + sys.argv[1])
got = []
if sys.argv[1] == "ask":
    node.create_subscription(UInt64, "doctor", lambda m: got.append(m.data), 10)
else:
    pub = node.create_publisher(UInt64, "doctor", 10)
end = time.monotonic() + (8 if sys.argv[1] == "ask" else 60)
while time.monotonic() < end and not got:
    if sys.argv[1] == "tell":
        pub.publish(UInt64(data=42))
    rclpy.spin_once(node, timeout_sec=0.1)
node.destroy_node()
rclpy.shutdown()
sys.exit(0 if got and got[0] == 42 else 1)
"""


class Finding(NamedTuple):
    """One line of the doctor: what, its state (ok, missing or optional), detail, cure."""

    what: str
    state: str
    detail: str
    cure: str = ""


def command(
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="Do what the first run would wait for: compile kernels, write the network's "
            "graph, on all cores; quick where it is done.",
        ),
    ] = False,
) -> None:
    """Check this machine: ROS 2, DDS, GPU, codecs, EGL. Exit code 1 where something needed fails.

    For example:

      amodal doctor

      amodal doctor --warm
    """
    if warm:
        raise typer.Exit(_warm_up())
    table = Table(box=None, header_style="bold")
    for title in ("", "what", "state", "what to do"):
        table.add_column(title, overflow="fold")
    marks = {"ok": "[green]ok[/]", "optional": "[yellow]--[/]", "missing": "[red]!![/]"}
    failed = False
    console = Console()
    with Console(stderr=True).status("looking around"):
        for check in CHECKS:
            finding = check()
            failed = failed or finding.state == "missing"
            table.add_row(marks[finding.state], finding.what, finding.detail, finding.cure)
    console.print(table)
    raise typer.Exit(1 if failed else 0)


def _warm_up() -> int:
    """Run all jobs and tell of each; 1 where one failed."""
    from amodal_ros.cli._warm import JOBS, run_all

    console, failed = Console(stderr=True), 0
    with console.status(f"warming up: {', '.join(JOBS)}"):
        for name, seconds, error in run_all():
            failed |= bool(error)
            console.print(f"{name}: {error or 'ready'}, {seconds:.1f} s", soft_wrap=True)
    return failed


def check_python() -> Finding:
    """The interpreter and the machine."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    text += f", {os.cpu_count()} cores"
    return Finding("Python", "ok", text)


def check_ros() -> Finding:
    """A sourced ROS 2, or what of it is embedded."""
    import amodal_ros  # noqa: F401, isort: skip - puts packages in place that are missing
    from embedded_ros.importer import PACKAGES

    try:
        files = {name: str(import_module(name).__file__) for name in PACKAGES}
    except ImportError as error:
        return Finding("ROS 2", "missing", str(error))
    embedded = [name for name, file in files.items() if "embedded_ros" in Path(file).parts]
    distribution = os.environ.get("ROS_DISTRO", "unknown distribution")
    if not embedded:
        return Finding("ROS 2", "ok", f"{distribution}, sourced")
    if "rclpy" not in embedded:
        rmw = import_module("rclpy").get_rmw_implementation_identifier()
        text = f"rclpy of {distribution} on {rmw}; embedded: {', '.join(embedded)}"
        apt = " ".join(PACKAGES[name] for name in embedded)
        return Finding("ROS 2", "ok", text, f"for the rest: apt install {apt}")
    return Finding(
        "ROS 2",
        "ok",
        f"embedded, on cyclonedds {_version('cyclonedds')}",
        "for rviz2 and the ros2 command: https://docs.ros.org/en/jazzy/Installation.html; "
        "services answer between it and others only on Cyclone DDS",
    )


def check_messages() -> Finding:
    """Our message package."""
    try:
        import_module("amodal_msgs.msg")
    except ImportError as error:
        cure = "colcon build --base-paths . amodal_msgs && . install/setup.bash"
        return Finding("amodal_msgs", "missing", str(error), cure)
    return Finding("amodal_msgs", "ok", "importable")


def check_dds() -> Finding:
    """Two processes that talk to each other, on a domain of their own."""
    command_line = [sys.executable, "-c", _LOOPBACK]
    with (
        own_domain(),
        subprocess.Popen(
            [*command_line, "tell"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as teller,
    ):
        heard = subprocess.run([*command_line, "ask"], capture_output=True, text=True, check=False)
        teller.terminate()
    if heard.returncode == 0:
        return Finding("DDS", "ok", "two processes hear each other")
    reason = (heard.stderr.strip().splitlines() or ["no message came in 8 s"])[-1]
    return Finding("DDS", "missing", reason, "allow multicast on lo: ip link set lo multicast on")


def check_dds_settings() -> Finding:
    """The settings with which images and scans arrive: the user's, else ours."""
    import amodal_ros  # noqa: F401, isort: skip - puts rclpy in place where there is none

    try:
        import rclpy
    except ImportError as error:
        return Finding("DDS settings", "missing", str(error))

    from amodal_ros.cli.launch import launch_file

    config = launch_file("pipeline").parents[1] / "config"
    embedded = "embedded_ros" in Path(rclpy.__file__).parts
    if embedded or "cyclone" in rclpy.get_rmw_implementation_identifier():
        variable, ours = CYCLONE, config / "cyclonedds.xml"
        own = "embedded_ros sets its own" if embedded else "the launch file sets ours"
    elif "fastrtps" in rclpy.get_rmw_implementation_identifier():
        variable = next((n for n in FAST_DDS if os.environ.get(n)), FAST_DDS[0])
        ours, own = config / "fastdds.xml", "the launch file sets ours"
    else:
        return Finding("DDS settings", "optional", "none of ours for this middleware")
    cure = f"unset {variable}, or export {variable}={ours}"
    value = os.environ.get(variable, "")
    if not value:
        hint = "" if embedded else f"for nodes started otherwise: export {variable}={ours}"
        return Finding("DDS settings", "ok", own, hint)
    try:
        # Cyclone DDS takes XML itself and lists, too; only a single file is looked into.
        inline = value.lstrip().startswith("<") or "," in value
        root = None if inline else ElementTree.parse(value.removeprefix("file://")).getroot()
    except (OSError, ElementTree.ParseError) as error:
        return Finding("DDS settings", "missing", f"{variable}: {error}", cure)
    if variable != CYCLONE and root is not None:
        sizes = [e.text or "" for e in root.iter() if e.tag.endswith("segment_size")]
        if not any(size.strip().isdigit() and int(size) >= _SEGMENT for size in sizes):
            text = f"{value} leaves less than {_SEGMENT >> 20} MB of shared memory: images get lost"
            return Finding("DDS settings", "optional", text, cure)
    return Finding("DDS settings", "ok", f"{variable}={value}")


def check_buffers() -> Finding:
    """How much the kernel keeps for a socket."""
    try:
        size = int(Path("/proc/sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        return Finding("socket buffers", "optional", "not known on this system")
    text = f"net.core.rmem_max is {size / 2**20:.1f} MB"
    if size < _BUFFER:
        cure = f"against lost scans with best effort: sysctl -w net.core.rmem_max={_BUFFER}"
        return Finding("socket buffers", "optional", text, cure)
    return Finding("socket buffers", "ok", text)


def check_shared_memory(place: Path = Path("/dev/shm")) -> Finding:
    """Room for the shared memory in which Fast DDS passes images and scans on."""
    what = "shared memory"
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        cure = "mount -t tmpfs tmpfs /dev/shm; containers: --ipc=host"
        return Finding(what, "optional", f"{place}: {error.strerror}", cure)
    text = f"{free / 2**20:.0f} MB free in {place}"
    if free < _SHARED:
        # Each process of Fast DDS maps a segment of that size.
        cure = "docker run --ipc=host, or --shm-size=1g; Fast DDS loses images without it"
        return Finding(what, "optional", text, cure)
    return Finding(what, "ok", text)


def check_torch() -> Finding:
    """PyTorch."""
    try:
        torch = import_module("torch")
    except ImportError:
        text = "not installed: the default model runs without it, on the CPU"
        cure = "for other models, training and GPUs: pip install 'amodal_ros[torch]'"
        return Finding("PyTorch", "optional", text, cure)
    return Finding("PyTorch", "ok", torch.__version__)


def check_gpu() -> Finding:
    """A GPU that PyTorch can use."""
    try:
        torch = import_module("torch")
    except ImportError:
        return Finding("GPU", "optional", "not asked: no PyTorch")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        text = f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GB free"
        return Finding("GPU", "ok", text, "device:=cuda:0")
    if shutil.which("nvidia-smi"):
        return Finding(
            "GPU", "optional", "there, but PyTorch cannot use it", "install a CUDA build of torch"
        )
    return Finding("GPU", "optional", "none; the default model runs on a CPU")


def check_weights() -> Finding:
    """The checkpoint that comes with the package."""
    checkpoint = shipped(DEFAULT)
    if checkpoint is None:
        cure = f"install the package again; the model `{FALLBACK}` needs none"
        return Finding("weights", "missing", f"none for the default model `{DEFAULT}`", cure)
    return Finding("weights", "ok", f"{DEFAULT}: {checkpoint.stat().st_size / 1e6:.1f} MB")


def check_codec() -> Finding:
    """An H.264 encoder, for overlay videos."""
    try:
        av = import_module("av")
        av.codec.Codec("libx264", "w")
    except Exception as error:
        cure = "pip install av (its wheels bring FFmpeg), or replay with --no-video"
        return Finding("H.264", "optional", f"no encoder: {error}", cure)
    return Finding("H.264", "ok", f"libx264 of av {_version('av')}")


def check_egl() -> Finding:
    """Rendering without a screen, for synthetic drives."""
    try:
        render = import_module("amodal_core.synthetic.render")
        context = render.create_context()
    except InputError as error:
        return Finding("EGL", "optional", error.what, error.cure)
    except Exception as error:
        return Finding("EGL", "optional", str(error), "apt install libegl1 libgl1-mesa-dri")
    name = context.info["GL_RENDERER"]
    context.release()
    return Finding("EGL", "ok", name)


def check_space() -> Finding:
    """Room on the disk of the working directory."""
    free = shutil.disk_usage(".").free / 2**30
    if free < 5:
        return Finding(
            "disk",
            "optional",
            f"{free:.1f} GB free here",
            "sensors write 33 MB a second",
        )
    return Finding("disk", "ok", f"{free:.0f} GB free here")


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_ros,
    check_messages,
    check_dds,
    check_dds_settings,
    check_buffers,
    check_shared_memory,
    check_torch,
    check_gpu,
    check_weights,
    check_codec,
    check_egl,
    check_space,
)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
