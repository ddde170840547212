"""OpenGL without a window: the context, programs in two variants, meshes on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.synthetic.materials import Material, Mode, shader_table
from amodal_core.synthetic.mesh import Mesh
from amodal_core.synthetic.texture_array import LAYERS

with extra("synth", "rendering"):
    import moderngl

# What an actor's paint colours.
TINTED = [m for m in Material if m.name.startswith(("PAINT", "CAR_", "BUS_", "TRUCK_FRONT"))]
CUTOUT = np.array([m.surface.mode == Mode.CUTOUT for m in Material])


def create_context() -> moderngl.Context:
    """A window-less OpenGL 3.3 context.

    Raises:
        InputError: this machine has no EGL or no driver.
    """
    try:
        return moderngl.create_context(standalone=True, require=330, backend="egl")  # type: ignore[arg-type]
    except Exception as error:
        raise InputError(
            f"no window-less OpenGL 3.3 (EGL): {error}",
            "amodal synth",
            "install a driver: apt install libegl1 libgl1-mesa-dri",
        ) from error


class Pair:
    """One pass's program in two variants: opaque (early depth test) and cut-out (discards)."""

    def __init__(self, ctx: moderngl.Context, name: str, vertex: str, fragment: str) -> None:
        self.name = name
        cut = fragment.replace("#version 330", "#version 330\n#define CUTOUT", 1)
        self.opaque: Any = ctx.program(
            vertex_shader=vertex.strip(), fragment_shader=fragment.strip()
        )
        self.cutout: Any = ctx.program(vertex_shader=vertex.strip(), fragment_shader=cut.strip())

    def set(self, name: str, value: object) -> None:
        """Set a uniform in both variants, where it survived compilation."""
        for program in (self.opaque, self.cutout):
            if name in program:
                uniform: Any = program[name]
                if isinstance(value, np.ndarray):
                    uniform.write(np.ascontiguousarray(value, np.float32).tobytes())
                else:
                    uniform.value = value


class GpuMesh:
    """Vertex buffers of a mesh with separate index buffers for opaque and cut-out triangles."""

    def __init__(self, ctx: moderngl.Context, mesh: Mesh, programs: Sequence[Pair]) -> None:
        packed = np.zeros(
            len(mesh.positions),
            [("p", "3f4"), ("n", "3f4"), ("t", "2f4"), ("c", "4u1"), ("k", "2u1"), ("pad", "2u1")],
        )
        packed["p"], packed["n"], packed["t"], packed["c"] = (
            mesh.positions,
            mesh.normals,
            mesh.uvs,
            mesh.colours,
        )
        packed["k"][:, 0], packed["k"][:, 1] = mesh.materials, mesh.parts
        self._vertices = ctx.buffer(packed.tobytes())
        holes = CUTOUT[mesh.materials[mesh.triangles[:, 0]]]
        self._indices = [
            ctx.buffer(np.ascontiguousarray(t, np.int32).tobytes()) if len(t) else None
            for t in (mesh.triangles[~holes], mesh.triangles[holes])
        ]
        self.arrays: dict[str, list[moderngl.VertexArray | None]] = {}
        for pair in programs:
            arrays: list[moderngl.VertexArray | None] = []
            for program, index in zip((pair.opaque, pair.cutout), self._indices, strict=True):
                if index is None:
                    arrays.append(None)
                    continue
                names = ("in_position", "in_normal", "in_uv", "in_colour", "in_kind")
                sizes = ("3f", "3f", "2f", "4f1", "2u1")
                layout = " ".join(
                    s if n in program else {"3f": "3x4", "2f": "2x4", "4f1": "4x1", "2u1": "2x1"}[s]
                    for n, s in zip(names, sizes, strict=True)
                )
                used = [n for n in names if n in program]
                content = [(self._vertices, layout + " 2x1", *used)]
                arrays.append(ctx.vertex_array(program, content, index, index_element_size=4))
            self.arrays[pair.name] = arrays

    def release(self) -> None:
        """Free what it holds on the GPU."""
        for arrays in self.arrays.values():
            for array in arrays:
                if array is not None:
                    array.release()
        self._vertices.release()
        for index in self._indices:
            if index is not None:
                index.release()


@lru_cache(maxsize=1)
def material_table() -> np.ndarray:
    """(256,) float32, the shader's four numbers for each material."""
    table = shader_table(LAYERS)
    table[TINTED, 1] += 16
    padded = np.zeros(256, np.float32)
    padded[: table.size] = table.reshape(-1)
    return padded
