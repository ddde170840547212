"""GLSL of the passes. Matrices are given row-major by NumPy and used as `row_vector * matrix`."""

from __future__ import annotations

from amodal_core.synthetic.assets import MAX_PARTS

_VERTEX_IN = f"""
#version 330
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec4 in_colour;
in uvec2 in_kind;  // material, part
uniform mat4 view;
uniform mat4 parts[{MAX_PARTS}];
uniform float table[256];
"""

COLOUR_VERTEX = (
    _VERTEX_IN
    + """
uniform mat4 shadow_static;
uniform mat4 shadow_moving;
uniform vec3 eye;
out vec3 world;
out vec3 normal;
out vec2 uv;
out vec4 colour;
out vec3 in_static;
out vec3 in_moving;
flat out vec4 surface;
void main() {
    vec4 p = vec4(in_position, 1.0) * parts[in_kind.y];
    world = p.xyz;
    normal = (vec4(in_normal, 0.0) * parts[in_kind.y]).xyz;
    uv = in_uv;
    colour = in_colour;
    int m = int(in_kind.x) * 4;
    surface = vec4(table[m], table[m + 1], table[m + 2], table[m + 3]);
    vec3 lifted = world + normalize(normal) * 0.06;
    in_static = (vec4(lifted, 1.0) * shadow_static).xyz;
    in_moving = (vec4(lifted, 1.0) * shadow_moving).xyz;
    gl_Position = p * view;
}
"""
)

COLOUR_FRAGMENT = """
#version 330
in vec3 world;
in vec3 normal;
in vec2 uv;
in vec4 colour;
in vec3 in_static;
in vec3 in_moving;
flat in vec4 surface;  // layer, mode (+16: takes the tint), roughness, f0
uniform sampler2DArray layers;
uniform sampler2D reflections;
uniform sampler2DShadow static_map;
uniform sampler2DShadow moving_map;
uniform vec3 eye;
uniform vec3 sun;
uniform vec3 sun_colour;
uniform vec3 sky_light;
uniform vec3 ground_light;
uniform vec3 haze_colour;
uniform float haze;
uniform vec3 tint;
uniform float braking;
uniform float lamps;
out vec4 shade;

vec3 linear(vec3 c) { return c * c * (c * 0.2 + 0.8); }

float lit(sampler2DShadow map, vec3 p) {
    if (p.x < 0.0 || p.x > 1.0 || p.y < 0.0 || p.y > 1.0) return 1.0;
    return texture(map, p);
}

vec3 mirror(vec3 d, float level) {
    float u = atan(d.y, d.x) * 0.15915494;
    float v = asin(clamp(d.z, -1.0, 1.0)) * 0.31830989 + 0.5;
    return textureLod(reflections, vec2(u, v), level).rgb;
}

void main() {
    vec4 texel = texture(layers, vec3(uv, surface.x));
    int mode = int(surface.y);
    bool tinted = mode >= 16;
    if (tinted) mode -= 16;
    #ifdef CUTOUT
    if (texel.a < 0.5) discard;
    #endif
    float roughness = surface.z;
    float f0 = surface.w;
    vec3 own = linear(colour.rgb) * (tinted ? linear(tint) : vec3(1.0));
    vec3 albedo;
    vec3 glow = vec3(0.0);
    if (mode == 1 || mode == 4) {
        vec3 printed = linear(texel.rgb);
        albedo = mix(own, printed, texel.a);
        if (mode == 4) {
            float red = texel.a * smoothstep(0.25, 0.55, texel.r - max(texel.g, texel.b));
            glow = vec3(1.0, 0.06, 0.03) * red * (1.5 * braking + 0.28 * lamps + 0.06);
            float least = min(texel.r, min(texel.g, texel.b));
            float white = texel.a * smoothstep(0.72, 0.9, least) * step(0.0, texel.b - texel.r);
            glow += vec3(1.0, 0.97, 0.9) * white * 2.2 * lamps;
        }
    } else if (mode == 3) {
        albedo = linear(texel.rgb) * mix(own, vec3(1.0), texel.a);
        roughness = mix(roughness, 0.03, texel.a);
        f0 = mix(f0, 0.075, texel.a);
    } else {
        albedo = own * linear(texel.rgb);
    }
    vec3 n = normalize(normal);
    vec3 to_eye = eye - world;
    float range = length(to_eye);
    vec3 v = to_eye / range;
    #ifdef CUTOUT
    float facing = abs(dot(n, v));
    float wrap = 0.35;
    #else
    if (dot(n, v) < 0.0) n = -n;
    float facing = dot(n, v);
    float wrap = 0.0;
    #endif
    float ao = colour.a;
    float cosine = clamp((dot(n, sun) + wrap) / (1.0 + wrap), 0.0, 1.0);
    float shadow = 0.0;
    if (cosine > 0.0) shadow = lit(static_map, in_static) * lit(moving_map, in_moving);
    vec3 ambient = mix(ground_light, sky_light, 0.5 + 0.5 * n.z) * ao;
    vec3 light = ambient + sun_colour * cosine * shadow;
    vec3 result = albedo * light + glow;
    if (roughness < 0.72) {
        float flat_on = 1.0 - clamp(facing, 0.0, 1.0);
        float fresnel = f0 + (1.0 - f0) * pow(flat_on, 5.0) * (1.0 - roughness);
        vec3 r = reflect(-v, n);
        float open = mix(1.0, ao, 0.75) * clamp(1.0 + 1.5 * r.z, 0.25, 1.0);
        result = result * (1.0 - fresnel) + mirror(r, roughness * 7.0) * fresnel * open;
        vec3 h = normalize(v + sun);
        float a = max(roughness * roughness, 0.004);
        float nh = clamp(dot(n, h), 0.0, 1.0);
        float d = nh * nh * (a * a - 1.0) + 1.0;
        float lobe = a * a / (3.14159 * d * d);
        result += sun_colour * shadow * cosine * min(lobe * 0.25 * fresnel, 12.0);
    }
    float clear = exp(-range * haze);
    shade = vec4(mix(haze_colour, result, clear), 1.0);
}
"""

SKY_VERTEX = """
#version 330
in vec2 in_position;
uniform mat4 world_from_clip;
out vec3 ray;
void main() {
    vec4 far = vec4(in_position, 1.0, 1.0) * world_from_clip;
    ray = far.xyz / far.w;
    gl_Position = vec4(in_position, 0.999999, 1.0);
}
"""

SKY_FRAGMENT = """
#version 330
in vec3 ray;
uniform sampler2D sky;
uniform vec3 eye;
out vec4 shade;
void main() {
    vec3 d = normalize(ray - eye);
    float u = atan(d.y, d.x) * 0.15915494;
    float v = asin(clamp(d.z, -1.0, 1.0)) * 0.31830989 + 0.5;
    shade = vec4(textureLod(sky, vec2(u, v), 0.0).rgb, 1.0);
}
"""

# Soft dark patch under an actor: multiplies what is there.
CONTACT_VERTEX = """
#version 330
in vec2 in_position;
uniform mat4 view;
uniform mat4 place;
uniform vec2 extent;
out vec2 at;
void main() {
    at = in_position * (extent + 0.45);
    gl_Position = (vec4(at, 0.025, 1.0) * place) * view;
}
"""

CONTACT_FRAGMENT = """
#version 330
in vec2 at;
uniform vec2 extent;
uniform float strength;
out vec4 shade;
void main() {
    vec2 inside = smoothstep(extent + 0.45, extent * 0.55, abs(at));
    float dark = inside.x * inside.y * strength;
    shade = vec4(vec3(1.0 - dark), 1.0);
}
"""

LABEL_VERTEX = (
    _VERTEX_IN
    + """
out vec2 uv;
flat out float layer;
out float depth;
void main() {
    vec4 p = vec4(in_position, 1.0) * parts[in_kind.y];
    uv = in_uv;
    layer = table[int(in_kind.x) * 4];
    gl_Position = p * view;
    depth = gl_Position.w;
}
"""
)

LABEL_FRAGMENT = """
#version 330
in vec2 uv;
flat in float layer;
in float depth;
uniform sampler2DArray layers;
uniform float label;
out vec2 result;
void main() {
    #ifdef CUTOUT
    if (textureLod(layers, vec3(uv, layer), 0.0).a < 0.5) discard;
    #endif
    result = vec2(label, depth);
}
"""

# Mean of 2 x 2 samples; very bright ones are held back, or highlights would flicker.
RESOLVE_VERTEX = """
#version 330
in vec2 in_position;
void main() {
    gl_Position = vec4(in_position, 0.0, 1.0);
}
"""

RESOLVE_FRAGMENT = """
#version 330
uniform sampler2D samples;
out vec4 shade;
void main() {
    ivec2 at = ivec2(gl_FragCoord.xy) * 2;
    vec4 sum = vec4(0.0);
    for (int k = 0; k < 4; k++) {
        sum += min(texelFetch(samples, at + ivec2(k & 1, k >> 1), 0), vec4(6.0));
    }
    shade = sum * 0.25;
}
"""
