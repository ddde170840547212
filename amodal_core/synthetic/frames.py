"""One frame of a drive: everything that is known of it, and its file while a run is under way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amodal_core.datasets.base import Place
from amodal_core.datasets.frames import open_frame, read_sample, save_sample
from amodal_core.frame import Calibration, Frame, Sample, Tracks
from amodal_core.synthetic.camera import CameraOptions, CameraResponse, pixel_motion
from amodal_core.synthetic.lidar import Caster, LidarOptions, scan
from amodal_core.synthetic.scene import Rig
from amodal_core.synthetic.truth import frame_truth
from amodal_core.synthetic.world import PERIOD, WorldOptions, generator, make_scene

DEPTH_SCALE = 256  # depth images are KITTI's: uint16, metres * 256, 0 = sky or beyond 255.9 m


@dataclass(eq=False)
class SyntheticFrame:
    """A frame with its whole truth.

    Attributes:
        frame: image, points and calibration; `depth` stays empty, as no sensor sees it densely.
        depth: (H, W) uint16, metres * 256 along the optical axis, 0 where there is nothing.
        point_ids: (N,) int32, the actor that each point lies on, 0 = background.
        truth: every object in the image; in a file, those that are annotated.
        world_from_lidar: (4, 4) ego pose.
        light: sun, overcast or dusk.
        street: kind of street.
    """

    frame: Frame
    depth: np.ndarray
    point_ids: np.ndarray
    truth: Tracks
    world_from_lidar: np.ndarray
    light: str
    street: str


class Drive:
    """Makes the frames of one sequence, in any order, each always the same.

    Args:
        world: what is driven through.
        sequence: number of the sequence.
        rig: camera and LiDAR's place.
        camera: how the camera sees.
        lidar: how the LiDAR measures.
    """

    def __init__(
        self,
        world: WorldOptions,
        sequence: int,
        rig: Rig,
        camera: CameraOptions,
        lidar: LidarOptions,
    ) -> None:
        self._world, self._sequence, self._rig, self._lidar = world, sequence, rig, lidar
        self.scene = make_scene(world, sequence, rig)
        textures = (
            world.seed * 7919 + sequence
        ) % 4096  # every sequence has its own makes and walls
        # Rendering is an extra: who reads drives that are there needs none.
        from amodal_core.synthetic.render import Renderer

        self._renderer = Renderer(self.scene, rig, textures)
        self._caster = Caster(self.scene, textures)
        self._response = CameraResponse(self.scene.light, camera)
        self._shutter = camera.shutter

    def frame(self, index: int) -> SyntheticFrame:
        """Frame `index` of the sequence."""
        rendered = self._renderer.frame(index)
        motion = None
        if self._shutter > 0 and len(self.scene.stamps) > 1:
            motion = pixel_motion(
                rendered.depth,
                rendered.labels,
                self._rig.K,
                self._moves(index),
                np.float32(self._shutter / PERIOD),
            )
        image = self._response.develop(
            rendered.radiance, motion, generator(self._world.seed, self._sequence, 1000 + 2 * index)
        )
        cloud = scan(
            self._caster,
            index,
            self._lidar,
            generator(self._world.seed, self._sequence, 1001 + 2 * index),
        )
        calibration = Calibration(
            self._rig.K, self._rig.camera_from_lidar, self._rig.width, self._rig.height
        )
        stamp = int(self.scene.stamps[index])
        frame = Frame(
            stamp, image=image, points=cloud.points, calibration=calibration, points_stamp=stamp
        )
        depth = np.rint(rendered.depth * DEPTH_SCALE)
        depth = np.where(depth < 65536, depth, 0).astype(np.uint16)
        return SyntheticFrame(
            frame,
            depth,
            cloud.ids,
            frame_truth(self.scene, rendered, index),
            self.scene.world_from_lidar[index],
            self.scene.light.kind,
            self.scene.kind,
        )

    def _moves(self, index: int) -> np.ndarray:
        """(A + 1, 4, 4) camera_next_from_camera_now of each actor's points over one frame."""
        way = self.scene.world_from_lidar
        now, nxt = (index - 1, index) if index == len(way) - 1 else (index, index + 1)
        camera = [self._rig.camera_from_lidar @ np.linalg.inv(way[k]) for k in (now, nxt)]
        back = np.linalg.inv(camera[0])
        moves = np.empty((max((a.id for a in self.scene.actors), default=0) + 1, 4, 4))
        moves[0] = camera[1] @ back
        for actor in self.scene.actors:
            moves[actor.id] = camera[1] @ actor.place(nxt) @ np.linalg.inv(actor.place(now)) @ back
        return moves

    def close(self) -> None:
        """Free the GPU."""
        self._renderer.close()


def save_frame(path: Path, made: SyntheticFrame) -> None:
    """Write a frame to one file, a sample of `datasets.frames` with what else is known of it."""
    save_sample(
        path,
        Sample(made.frame, made.truth),
        depth=made.depth,
        point_ids=made.point_ids,
        world_from_lidar=made.world_from_lidar,
        kinds=np.array([made.light, made.street]),
    )


def load_frame(path: Path) -> SyntheticFrame:
    """Read what `save_frame` wrote."""
    with open_frame(path) as columns:
        sample = read_sample(columns, Place(path.stem))
        assert sample.truth is not None
        sample.frame.points_stamp = sample.frame.stamp
        light, street = (str(k) for k in columns["kinds"])
        return SyntheticFrame(
            sample.frame,
            columns["depth"],
            columns["point_ids"],
            sample.truth,
            columns["world_from_lidar"],
            light,
            street,
        )
