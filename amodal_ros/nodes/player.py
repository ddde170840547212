"""Plays a rosbag2 bag: for machines without ROS 2, and for launches that end with their bag."""

from __future__ import annotations

import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time as TimeMessage
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock as ClockMessage

from amodal_core.bags.reader import BagReader, RawMessage
from amodal_core.drive.topics import CLOCK, COMPRESSED_SUFFIX, DIAGNOSTICS, TRACKS, Topic
from amodal_core.errors import InputError
from amodal_ros import lifeline
from amodal_ros.base_node import BaseNode
from amodal_ros.conversions import message_class
from amodal_ros.declarations import Declaration, Parameter
from amodal_ros.health import NodeState
from amodal_ros.interrupts import deaf_to_interrupts
from amodal_ros.qos import profile
from amodal_ros.running import executor_of, interrupted

_CLOCK_PERIOD = 0.02  # seconds between two messages on /clock
# Seconds for which nothing may change before all subscribers count as there. Fast DDS takes 1.3 s
# in the median from the creation of a publisher to its match with a subscriber.
_STEADY = 1.0 if "embedded_ros" in Path(rclpy.__file__).parts else 3.0
_LOOK = 0.05  # seconds between two looks for them
_PATIENCE = 3.0  # seconds without an answer after which time goes on at the end of the bag
_AHEAD_NS = 10_000_000_000  # how far the clock runs on after the last message


class Player(BaseNode):
    """Plays the messages as they were recorded, and ends when the pipeline has answered them."""

    declaration = Declaration(
        name="player",
        purpose="Plays an MCAP or SQLite bag with /clock. Waits for the pipeline before the first "
        "message, so that none is lost; ends when the tracks of the last image are there.",
        subscribes=(
            replace(TRACKS, description="Answers to the images, of each camera", required=False),
            replace(DIAGNOSTICS, description="Why frames are dropped", required=False),
        ),
        publishes=(CLOCK,),
        parameters=(
            Parameter("bag", "", "The bag: a folder, or a .mcap, .db3 or .bag file."),
            Parameter("rate", 1.0, "Speed; 2.0 plays twice as fast.", low=0.01, high=100.0),
            Parameter("loop", False, "Begin again at the end, until interrupted."),
            Parameter(
                "frame_topic",
                "",
                "Topics of the bag with one message a frame, separated by commas, to count "
                "answers; empty counts none.",
            ),
            Parameter(
                "answers",
                TRACKS.name,
                "Topics of the answers to the frames of frame_topic, in the same order.",
            ),
            Parameter(
                "wait_for",
                "",
                "Topics, separated by commas, that must be published before playing begins.",
            ),
            Parameter(
                "wait_timeout",
                300.0,
                "Seconds to wait for them before giving up.",
                low=0.0,
                high=3600.0,
            ),
            Parameter(
                "max_in_flight",
                0,
                "Frames that may be unanswered before time is held; 0 never holds it.",
                low=0,
                high=1000,
            ),
            Parameter(
                "drain_timeout",
                15.0,
                "Seconds without a new answer after which the rest is given up.",
                low=0.0,
                high=3600.0,
            ),
        ),
    )

    def __init__(self, **kwargs: Any) -> None:
        self._answered = threading.Condition()
        # Frames without an answer, by the topic of answers, and whether time still waits for it.
        self._open: dict[tuple[str, int], bool] = {}
        self._answers_of: dict[str, str] = {}  # topic of answers by the topic of frames
        self._answers = 0
        self._frames = 0
        self._held = 0.0
        self._bag_outputs: dict[str, Any] = {}
        self._states: dict[str, NodeState] = {}  # of the pipeline's nodes
        self._played_until = 0
        super().__init__(**kwargs)

    def configure(self) -> None:
        """Open the bag and offer its topics."""
        bag = self.value("bag")
        if not bag:
            raise InputError("no bag is given", "parameter bag", "set it to a bag's folder or file")
        self._bag = BagReader(bag)
        for topic in self._bag.topics.values():
            if topic.name == CLOCK.name:
                continue
            try:
                kind = message_class(topic.type)
            except (ImportError, AttributeError):
                self.get_logger().warning(
                    f"{topic.name} is not played: {topic.type} is not installed"
                )
                continue
            qos = profile("latched_tf" if topic.latched else "reliable", lossless=True)
            qos = self.overridden(Publisher, topic.name, qos)
            self._bag_outputs[topic.name] = self.create_publisher(kind, topic.name, qos)
        frames, answers = (_listed(self.value(name)) for name in ("frame_topic", "answers"))
        if frames and len(frames) != len(answers):
            text = f"{len(answers)} answers to {len(frames)} topics of frames"
            raise InputError(text, "parameters frame_topic and answers", "name one for each")
        for k, name in enumerate(frames):
            if name not in self._bag_outputs:
                frames[k] = name + COMPRESSED_SUFFIX  # as the nodes take it
            if frames[k] not in self._bag_outputs:
                listed = ", ".join(sorted(self._bag_outputs))
                raise InputError(f"no topic {name}", bag, f"it has: {listed}")
        self._answers_of = dict(zip(frames, answers, strict=False))

    def inputs(self) -> Sequence[Topic]:
        """The answers, and the nodes' diagnostics."""
        tracks, diagnostics = self.declaration.subscribes
        return (*(replace(tracks, name=n) for n in self._answers_of.values()), diagnostics)

    def on_message(self, topic: Topic, stamp: int, message: Any) -> None:
        """Tracks came back: all frames up to theirs are answered; or a node tells its drops."""
        if topic.name == DIAGNOSTICS.name:
            self._note_states(message)
            return
        with self._answered:
            if (topic.name, stamp) in self._open:
                self._answers += 1
            for frame in [f for f in self._open if f[0] == topic.name and f[1] <= stamp]:
                del self._open[frame]
            self._answered.notify_all()

    def play(self) -> int:
        """Play the bag.

        Returns:
            0, or 1 where the pipeline did not come up or answered no frame at all.
        """
        if not self._wait_for_pipeline():
            return 1
        log = self.get_logger()
        while True:
            log.info(f"playing {self.value('bag')} at {self.value('rate'):g} x")
            self._play_once()
            self._drain()
            text = f"played {self._frames} frames"
            if self.value("frame_topic"):
                text += f", {self._answers} answered"
            if self.value("max_in_flight"):
                text += f", held {self._held:.1f} s for the pipeline"
            log.info(text)
            if self._frames and not self._answers and self.value("frame_topic"):
                log.error(f"none of the {self._frames} frames was answered: {self._why()}")
                return 1
            if not self.value("loop"):
                # Others listen to the same last messages and may be a little behind.
                time.sleep(_STEADY)
                return 0
            with self._answered:
                self._open.clear()

    def _note_states(self, message: Any) -> None:
        for status in message.status:
            state = NodeState.read({v.key: v.value for v in status.values})
            if state is not None:
                self._states[status.name] = state

    def _why(self) -> str:
        """What a node lacks, or the most frequent reason for which one dropped frames."""
        drops = []
        for name, state in self._states.items():
            for kind, line in state.wrong.items():
                if kind == "calibration" or " ever on " in line:
                    return f"{name}: {line}"
            drops += [(count, name, reason) for reason, count in state.drops.items()]
        if not drops:
            return "no node says why; see their logs"
        count, name, reason = max(drops)
        return f"{name} dropped {count}: {reason}"

    def _wait_for_pipeline(self) -> bool:
        """Wait until all expected topics are published and no more subscribers turn up."""
        names = [self.topic_name(n) for n in _listed(self.value("wait_for"))]
        deadline = time.monotonic() + self.value("wait_timeout")
        before: Any = None
        steady = 0  # looks, not seconds: where this process is starved, those that start are too
        while True:
            _check(self)
            missing = [n for n in names if self.count_publishers(n) == 0]
            now = [p.get_subscription_count() for p in self._bag_outputs.values()]
            steady = steady + 1 if now == before and not missing else 0
            before = now
            if steady * _LOOK > _STEADY:
                return True
            if missing and time.monotonic() > deadline:
                self.get_logger().error(
                    f"nobody publishes {', '.join(missing)} after "
                    f"{self.value('wait_timeout'):g} s: nothing is played"
                )
                return False
            time.sleep(_LOOK)

    def _play_once(self) -> None:
        rate = float(self.value("rate"))
        limit = self.value("max_in_flight") * len(self._answers_of)
        first: int | None = None
        begin = 0.0
        for raw in self._bag.raw_messages(self._bag_outputs):
            if first is None:
                first, begin = raw.stamp, time.monotonic()
            answers = self._answers_of.get(raw.topic)
            if answers is not None:
                begin += self._hold(limit)
            self._wait_until(begin, first, raw.stamp, rate)
            if answers is not None:
                with self._answered:
                    self._open[answers, _header_stamp(raw)] = True
                    self._frames += 1
            self._bag_outputs[raw.topic].publish(self._bag.current(raw))
            self._played_until = raw.stamp

    def _wait_until(self, begin: float, first: int, stamp: int, rate: float) -> None:
        """Let the bag's time pass until a message's."""
        due = begin + (stamp - first) * 1e-9 / rate
        while True:
            _check(self)
            left = due - time.monotonic()
            at = stamp if left <= 0 else stamp - round(left * rate * 1e9)
            self._tell_time(max(at, first))
            if left <= 0:
                return
            time.sleep(min(left, _CLOCK_PERIOD))

    def _hold(self, limit: int) -> float:
        """Hold time while too many frames are unanswered; seconds that it took."""
        begin = time.monotonic()
        with self._answered:
            while limit and sum(self._open.values()) >= limit:
                _check(self)
                if not self._answered.wait(0.1) and (
                    time.monotonic() - begin > self.value("drain_timeout")
                ):
                    self.warn("hold", f"no answer yet to {len(self._open)} frames: going on")
                    self._open = dict.fromkeys(self._open, False)
        took = time.monotonic() - begin
        self._held += took
        return took

    def _drain(self) -> None:
        """Wait for the answers to the last frames.

        Time stands as long as answers come: nothing is late then. When they stay away it goes on,
        so that what waits for a partner that never comes is given up and the rest is answered.
        """
        if not self.value("frame_topic"):
            return
        now, end = self._played_until, self._played_until + _AHEAD_NS
        left, since = -1, time.monotonic()
        while True:
            _check(self)
            with self._answered:
                self._answered.wait(_CLOCK_PERIOD)
                if len(self._open) != left:
                    left, since = len(self._open), time.monotonic()
            if left == 0:
                break
            silent = time.monotonic() - since
            if silent > self.value("drain_timeout"):
                self.get_logger().warning(f"no tracks came for the last {left} frames")
                break
            if silent > _PATIENCE:
                now = min(now + round(2 * _CLOCK_PERIOD * 1e9), end)
                self._tell_time(now)

    def _tell_time(self, stamp: int) -> None:
        sec, nanosec = divmod(stamp, 1_000_000_000)
        self.publish(CLOCK.name, ClockMessage(clock=TimeMessage(sec=sec, nanosec=nanosec)))


def _listed(text: str) -> list[str]:
    """Names that commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _check(node: BaseNode) -> None:
    """End playing when the process is asked to end."""
    if not rclpy.ok(context=node.context):
        raise ExternalShutdownException


def _header_stamp(raw: RawMessage) -> int:
    """The stamp of the std_msgs/Header that a message begins with, nanoseconds."""
    order = "<" if raw.data[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(order + "iI", raw.data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def main(args: Sequence[str] | None = None) -> int:
    """Run the player."""
    lifeline.follow()
    rclpy.init(args=list(args) if args is not None else sys.argv)
    player: Player | None = None
    thread: threading.Thread | None = None
    try:
        player = Player()
        if not player.autostart():
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(player)
        thread = threading.Thread(target=executor_of(executor), daemon=True)
        thread.start()
        return player.play()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except InputError as error:
        if player is not None:
            player.get_logger().error(str(error))
        return 1
    except Exception:
        if not interrupted():
            raise
        return 0
    finally:
        with deaf_to_interrupts():
            rclpy.try_shutdown()
            if thread is not None:
                thread.join(2.0)
            if player is not None:
                player.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
