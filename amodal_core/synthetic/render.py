"""Renders a scene: colour with shadows and reflections, labels, depth, and objects alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from amodal_core.extras import extra
from amodal_core.synthetic import shaders
from amodal_core.synthetic.assets import MAX_PARTS
from amodal_core.synthetic.gpu import GpuMesh, Pair, create_context, material_table
from amodal_core.synthetic.light import Light, panorama, reflected
from amodal_core.synthetic.scene import Actor, Rig, Scene
from amodal_core.synthetic.texture_array import texture_array

with extra("synth", "rendering"):
    import moderngl

NEAR, FAR = 0.25, 600.0
SUPERSAMPLE = 2
ATLAS_ROWS = 2  # heights of the image in the atlas of amodal masks
STATIC_SHADOW, MOVING_SHADOW = 4096, 2048


def projection(K: np.ndarray, width: int, height: int) -> np.ndarray:
    """(4, 4) clip_from_camera of an OpenCV camera; row 0 of the picture is row 0 of a read-back.

    Pixel centres are integers in K and half-integers in GL, hence the + 0.5.
    """
    clip = np.zeros((4, 4))
    clip[0] = [2 * K[0, 0] / width, 2 * K[0, 1] / width, 2 * (K[0, 2] + 0.5) / width - 1, 0]
    clip[1] = [0, 2 * K[1, 1] / height, 2 * (K[1, 2] + 0.5) / height - 1, 0]
    clip[2] = [0, 0, (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)]
    clip[3] = [0, 0, 1, 0]
    return clip


@dataclass(eq=False)
class Rendered:
    """What the GPU gave for one frame.

    Attributes:
        radiance: (H, W, 3) float32 linear light, box-filtered from 2 x 2 samples.
        labels: (H, W) int32 actor ids, 0 = background.
        depth: (H, W) float32 metres along the optical axis, 0 = sky.
        amodal: x0, y0 and depth patch (0 outside) of each actor id in the image, visible or not.
    """

    radiance: np.ndarray
    labels: np.ndarray
    depth: np.ndarray
    amodal: dict[int, tuple[int, int, np.ndarray]]


def _corners(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(8, 4) homogeneous corners of a box."""
    return np.array([(*p, 1) for p in product(*zip(low, high, strict=True))])


def _outside(clip: np.ndarray) -> bool:
    """Whether points (N, 4) in clip space are all beyond one side of the image."""
    return any(np.all(s * clip[:, k] > clip[:, 3]) for k in (0, 1, 2) for s in (-1, 1))


class Renderer:
    """Renders the frames of one scene; geometry, textures and static shadows stay on the GPU.

    Args:
        scene: what to render.
        rig: the camera.
        texture_seed: seed of the texture layers.
        ctx: a context to share; a new one where None.
    """

    def __init__(
        self, scene: Scene, rig: Rig, texture_seed: int = 0, ctx: moderngl.Context | None = None
    ) -> None:
        self.ctx = ctx or create_context()
        self.scene, self.rig = scene, rig
        self.clip = projection(rig.K, rig.width, rig.height)
        self._colour = Pair(self.ctx, "colour", shaders.COLOUR_VERTEX, shaders.COLOUR_FRAGMENT)
        self._label = Pair(self.ctx, "label", shaders.LABEL_VERTEX, shaders.LABEL_FRAGMENT)
        pairs = (self._colour, self._label)
        self._layers = self._upload_layers(texture_seed)
        self._sky_map, self._reflections = self._upload_sky(scene.light)
        self._chunks = [(GpuMesh(self.ctx, m, pairs), m.bounds) for m in scene.chunks]
        self._assets = {id(a.asset): GpuMesh(self.ctx, a.asset.mesh, pairs) for a in scene.actors}
        self._make_targets()
        self._make_screen_programs()
        for pair in pairs:
            pair.set("table", material_table())
            pair.set("layers", 0)
        self._constants(scene.light)
        self._static_matrix = self._shadow_matrix(self._static_region())
        self._draw_static_shadow()

    def _upload_layers(self, seed: int) -> moderngl.TextureArray:
        layers = texture_array(seed)
        count, size = layers.shape[:2]
        array = self.ctx.texture_array((size, size, count), 4, layers.tobytes())
        array.build_mipmaps()
        array.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        array.repeat_x = array.repeat_y = True
        return array

    def _upload_sky(self, light: Light) -> tuple[moderngl.Texture, moderngl.Texture]:
        sky = panorama(light)
        mirror = reflected(sky, np.random.default_rng(light.seed + 1))
        textures = []
        for image in (sky, mirror):
            height, width = image.shape[:2]
            texture = self.ctx.texture(
                (width, height), 3, image.astype(np.float16).tobytes(), dtype="f2", alignment=1
            )
            texture.repeat_x, texture.repeat_y = True, False
            textures.append(texture)
        textures[0].filter = (moderngl.LINEAR, moderngl.LINEAR)
        textures[1].build_mipmaps()
        textures[1].filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        return textures[0], textures[1]

    def _make_targets(self) -> None:
        ctx, size = self.ctx, (self.rig.width, self.rig.height)
        big = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
        self._samples = ctx.texture(big, 4, dtype="f2")
        self._colour_target = ctx.framebuffer([self._samples], ctx.depth_renderbuffer(big))
        self._label_target = ctx.framebuffer(
            [ctx.texture(size, 2, dtype="f4")], ctx.depth_renderbuffer(size)
        )
        self._small_target = ctx.framebuffer([ctx.texture(size, 4, dtype="f4")])
        sheet = (size[0], size[1] * ATLAS_ROWS)
        self._atlas = ctx.framebuffer(
            [ctx.texture(sheet, 2, dtype="f4")], ctx.depth_renderbuffer(sheet)
        )
        self._shadow_maps: list[tuple[moderngl.Texture, moderngl.Framebuffer]] = []
        for side in (STATIC_SHADOW, MOVING_SHADOW):
            texture = ctx.depth_texture((side, side))
            texture.compare_func = "<="
            texture.filter = (moderngl.LINEAR, moderngl.LINEAR)
            texture.repeat_x = texture.repeat_y = False
            self._shadow_maps.append((texture, ctx.framebuffer(depth_attachment=texture)))

    def _make_screen_programs(self) -> None:
        square = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], np.float32)
        corners = self.ctx.buffer(square.tobytes())

        def program(vertex: str, fragment: str) -> tuple[Any, moderngl.VertexArray]:
            made = self.ctx.program(vertex_shader=vertex.strip(), fragment_shader=fragment.strip())
            return made, self.ctx.vertex_array(made, [(corners, "2f", "in_position")])

        self._sky, self._sky_array = program(shaders.SKY_VERTEX, shaders.SKY_FRAGMENT)
        contact = program(shaders.CONTACT_VERTEX, shaders.CONTACT_FRAGMENT)
        self._contact, self._contact_array = contact
        _, self._resolve_array = program(shaders.RESOLVE_VERTEX, shaders.RESOLVE_FRAGMENT)
        self._sky["sky"] = 1

    def _constants(self, light: Light) -> None:
        sky = light.zenith * 0.5 + light.horizon * 0.5
        pair = self._colour
        pair.set("reflections", 2)
        pair.set("static_map", 3)
        pair.set("moving_map", 4)
        pair.set("sun", tuple(light.sun))
        pair.set("sun_colour", tuple(light.sun_colour))
        pair.set("sky_light", tuple(sky * (0.5 if light.kind == "sun" else 0.8)))
        pair.set(
            "ground_light", tuple(light.ground + 0.12 * light.sun_colour * max(light.sun[2], 0))
        )
        pair.set("haze_colour", tuple(light.horizon * 0.85))
        pair.set("haze", float(light.haze))
        pair.set("lamps", float(light.lamps))

    def _static_region(self) -> tuple[np.ndarray, float]:
        way = self.scene.world_from_lidar[:, :3, 3]
        forward = self.scene.world_from_lidar[:, :3, 0]
        reach = np.concatenate([way - 25 * forward, way + 75 * forward])
        low, high = reach[:, :2].min(axis=0), reach[:, :2].max(axis=0)
        centre = np.append((low + high) / 2, 3.0)
        return centre, float(np.hypot(*(high - low)) / 2 + 22)

    def _shadow_matrix(self, region: tuple[np.ndarray, float]) -> np.ndarray:
        """(4, 4) clip_from_world of a parallel projection along the sunlight."""
        centre, radius = region
        sun = self.scene.light.sun
        side = np.cross([0, 0, 1.0], sun)
        side /= np.linalg.norm(side)
        up = np.cross(sun, side)
        rows = np.stack([side, up, -sun])
        # ground foreshortens by sin(elevation) along `up`: use the map's height for it
        squeeze = max(float(sun[2]), 0.2) * 1.15
        matrix = np.eye(4)
        for k, reach in enumerate((radius, radius * squeeze, radius * 2 + 60)):
            matrix[k, :3], matrix[k, 3] = rows[k] / reach, -rows[k] @ centre / reach
        return matrix

    def _depth_pass(self, index: int, matrix: np.ndarray) -> None:
        target = self._shadow_maps[index][1]
        target.use()
        target.clear(depth=1.0)
        self.ctx.enable_only(moderngl.DEPTH_TEST)
        self._layers.use(0)
        self._label.set("view", matrix)

    def _draw_static_shadow(self) -> None:
        self._depth_pass(0, self._static_matrix)
        self._set_parts(self._label, np.broadcast_to(np.eye(4), (MAX_PARTS, 4, 4)))
        for mesh, _ in self._chunks:
            self._draw(mesh, "label")

    def _set_parts(self, pair: Pair, matrices: np.ndarray) -> None:
        pair.set("parts", np.asarray(matrices))

    @staticmethod
    def _draw(mesh: GpuMesh, name: str) -> None:
        for array in mesh.arrays[name]:
            if array is not None:
                array.render()

    def frame(self, index: int) -> Rendered:
        """Render frame `index` of the scene."""
        world_from_lidar = self.scene.world_from_lidar[index]
        camera_from_world = self.rig.camera_from_lidar @ np.linalg.inv(world_from_lidar)
        view = self.clip @ camera_from_world
        eye = np.linalg.inv(camera_from_world)[:3, 3]
        chunks = self._visible_chunks(view, eye)
        actors = [(a, a.parts(index)) for a in self.scene.actors]
        inside = [(a, p) for a, p in actors if self._in_view(a, index, view)]
        inside.sort(key=lambda pair: float(np.hypot(*(pair[0].xy[index] - eye[:2]))))
        radiance = self._draw_colour(index, view, eye, chunks, actors, inside)
        labels, depth = self._draw_labels(view, chunks, inside)
        amodal = self._draw_amodal(index, view, inside)
        return Rendered(radiance, labels, depth, amodal)

    def _visible_chunks(self, view: np.ndarray, eye: np.ndarray) -> list[GpuMesh]:
        kept = []
        for mesh, (low, high) in self._chunks:
            if _outside(_corners(low, high) @ view.T):
                continue
            middle = np.clip(eye, low, high)
            kept.append((float(np.linalg.norm(middle - eye)), mesh))
        kept.sort(key=lambda pair: pair[0])
        return [mesh for _, mesh in kept]

    def _corners(self, actor: Actor, index: int) -> np.ndarray:
        low, high = actor.asset.mesh.bounds
        margin = 0.0 if actor.asset.wheel_radius and actor.asset.category != "cyclist" else 0.5
        return _corners(low - margin, high + margin) @ actor.place(index).T

    def _in_view(self, actor: Actor, index: int, view: np.ndarray) -> bool:
        return not _outside(self._corners(actor, index) @ view.T)

    def _draw_colour(
        self,
        index: int,
        view: np.ndarray,
        eye: np.ndarray,
        chunks: list[GpuMesh],
        actors: list[tuple[Actor, np.ndarray]],
        inside: list[tuple[Actor, np.ndarray]],
    ) -> np.ndarray:
        forward = self.scene.world_from_lidar[index][:3, 0]
        moving = self._shadow_matrix((eye + 32 * forward - [0, 0, 1.6], 46.0))
        self._depth_pass(1, moving)
        for actor, parts in actors:
            if np.hypot(*(actor.xy[index] - eye[:2])) < 90:
                self._set_parts(self._label, parts)
                self._draw(self._assets[id(actor.asset)], "label")
        pair, ctx = self._colour, self.ctx
        self._colour_target.use()
        self._colour_target.clear(0, 0, 0, 0, depth=1.0)
        ctx.enable_only(moderngl.DEPTH_TEST)
        self._layers.use(0)
        self._sky_map.use(1)
        self._reflections.use(2)
        self._shadow_maps[0][0].use(3)
        self._shadow_maps[1][0].use(4)
        half = np.array([[0.5, 0, 0, 0.5], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0.5], [0, 0, 0, 1]])
        pair.set("view", view)
        pair.set("eye", tuple(eye))
        pair.set("shadow_static", half @ self._static_matrix)
        pair.set("shadow_moving", half @ moving)
        for actor, parts in inside:
            self._set_parts(pair, parts)
            pair.set("tint", tuple(actor.tint))
            pair.set("braking", float(actor.braking[index]))
            self._draw(self._assets[id(actor.asset)], "colour")
        self._set_parts(pair, np.broadcast_to(np.eye(4), (MAX_PARTS, 4, 4)))
        pair.set("tint", (1.0, 1.0, 1.0))
        for mesh in chunks:
            self._draw(mesh, "colour")
        self._sky["world_from_clip"].write(
            np.ascontiguousarray(np.linalg.inv(view), np.float32).tobytes()
        )
        self._sky["eye"].value = tuple(eye)
        ctx.enable_only(moderngl.DEPTH_TEST)
        self._sky_array.render(moderngl.TRIANGLE_STRIP)
        self._draw_contacts(index, view, inside)
        self._small_target.use()
        ctx.enable_only(moderngl.NOTHING)
        self._samples.use(0)
        self._resolve_array.render(moderngl.TRIANGLE_STRIP)
        data = np.frombuffer(self._small_target.read(components=4, dtype="f4"), np.float32)
        return data.reshape(self.rig.height, self.rig.width, 4)[..., :3]

    def _draw_contacts(
        self, index: int, view: np.ndarray, inside: list[tuple[Actor, np.ndarray]]
    ) -> None:
        ctx = self.ctx
        ctx.enable_only(moderngl.DEPTH_TEST | moderngl.BLEND)
        ctx.blend_func = moderngl.DST_COLOR, moderngl.ZERO
        self._colour_target.depth_mask = False
        self._contact["view"].write(np.ascontiguousarray(view, np.float32).tobytes())
        for actor, _ in inside:
            length, width, _ = actor.asset.size
            walker = actor.asset.category in ("pedestrian", "cyclist")
            extent = (
                (0.25, 0.25) if actor.asset.category == "pedestrian" else (length / 2, width / 2)
            )
            self._contact["place"].write(
                np.ascontiguousarray(actor.place(index), np.float32).tobytes()
            )
            self._contact["extent"].value = extent
            self._contact["strength"].value = 0.35 if walker else 0.8
            self._contact_array.render(moderngl.TRIANGLE_STRIP)
        self._colour_target.depth_mask = True
        ctx.enable_only(moderngl.DEPTH_TEST)

    def _draw_labels(
        self, view: np.ndarray, chunks: list[GpuMesh], inside: list[tuple[Actor, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        pair, target = self._label, self._label_target
        target.use()
        target.clear(0, 0, 0, 0, depth=1.0)
        self.ctx.enable_only(moderngl.DEPTH_TEST)
        self._layers.use(0)
        pair.set("view", view)
        for actor, parts in inside:
            self._set_parts(pair, parts)
            pair.set("label", float(actor.id))
            self._draw(self._assets[id(actor.asset)], "label")
        self._set_parts(pair, np.broadcast_to(np.eye(4), (MAX_PARTS, 4, 4)))
        pair.set("label", 0.0)
        for mesh in chunks:
            self._draw(mesh, "label")
        both = np.frombuffer(target.read(components=2, dtype="f4"), np.float32)
        both = both.reshape(self.rig.height, self.rig.width, 2)
        return both[..., 0].astype(np.int32), np.ascontiguousarray(both[..., 1])

    def _screen_box(
        self, actor: Actor, index: int, view: np.ndarray
    ) -> tuple[int, int, int, int] | None:
        width, height = self.rig.width, self.rig.height
        clip = self._corners(actor, index) @ view.T
        if (clip[:, 3] < NEAR).any():
            return (0, 0, width, height)
        x = (clip[:, 0] / clip[:, 3] + 1) / 2 * width
        y = (clip[:, 1] / clip[:, 3] + 1) / 2 * height
        x0, x1 = max(int(np.floor(x.min())) - 1, 0), min(int(np.ceil(x.max())) + 1, width)
        y0, y1 = max(int(np.floor(y.min())) - 1, 0), min(int(np.ceil(y.max())) + 1, height)
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def _draw_amodal(
        self, index: int, view: np.ndarray, inside: list[tuple[Actor, np.ndarray]]
    ) -> dict[int, tuple[int, int, np.ndarray]]:
        """Each actor alone, in a cell of an atlas: one read-back serves many.

        A cell shows its part of the image pixel for pixel: the viewport moves by whole pixels.
        """
        boxes = [(a, p, self._screen_box(a, index, view)) for a, p in inside]
        boxed = [(a, p, box) for a, p, box in boxes if box is not None]
        width, height = self.rig.width, self.rig.height
        sizes = [(x1 - x0, y1 - y0) for _, _, (x0, y0, x1, y1) in boxed]
        pair, target = self._label, self._atlas
        pair.set("view", view)
        result: dict[int, tuple[int, int, np.ndarray]] = {}
        for sheet in shelves(sizes, width, ATLAS_ROWS * height):
            target.use()
            target.scissor = target.viewport = (0, 0, width, ATLAS_ROWS * height)
            target.clear(0, 0, 0, 0, depth=1.0)
            for k, (left, low) in sheet.items():
                actor, parts, (x0, y0, _, _) = boxed[k]
                target.viewport = (left - x0, low - y0, width, height)
                target.scissor = (left, low, *sizes[k])
                self._set_parts(pair, parts)
                pair.set("label", float(actor.id))
                self._draw(self._assets[id(actor.asset)], "label")
            used = max(low + sizes[k][1] for k, (_, low) in sheet.items())
            data = target.read(viewport=(0, 0, width, used), components=2, dtype="f4")
            depth = np.frombuffer(data, np.float32).reshape(used, width, 2)[..., 1]
            for k, (left, low) in sheet.items():
                actor, _, (x0, y0, _, _) = boxed[k]
                patch = depth[low : low + sizes[k][1], left : left + sizes[k][0]]
                if patch.any():
                    result[actor.id] = (x0, y0, patch.copy())
        return result

    def close(self) -> None:
        """Free everything on the GPU."""
        for mesh, _ in self._chunks:
            mesh.release()
        for mesh in self._assets.values():
            mesh.release()
        self.ctx.release()


def shelves(
    sizes: list[tuple[int, int]], width: int, height: int
) -> list[dict[int, tuple[int, int]]]:
    """Pack rectangles (width, height) into sheets: of each, x and y by index of the rectangle."""
    sheets: list[dict[int, tuple[int, int]]] = []
    x = y = tall = 0
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k][1]):
        w, h = sizes[k]
        if x + w > width:
            x, y, tall = 0, y + tall, 0
        if not sheets or y + h > height:
            sheets.append({})
            x = y = tall = 0
        sheets[-1][k] = (x, y)
        x, tall = x + w, max(tall, h)
    return sheets
