#!/usr/bin/env bash
# One run of a rented GPU, within ten minutes of it: renders drives on all cores, trains the
# flagship, judges it, and leaves weights and figures in OUT. What is there already is not made
# again, so the same command goes on where a machine was taken away.
#
#   bash training/gpu_run.sh OUT [FRAMES [SECONDS [key=value ...]]]
#
# OUT      folder for best.safetensors, final.safetensors, last.pt, metrics.jsonl, figures.txt
# FRAMES   rendered for training (4800)
# SECONDS  from the start of this script to the last step of the training (480)
# key=value of the configuration, such as batch_size=64
#
# STEPS    of the training; as many as there is time for when it is not set
# INIT     checkpoint that the training begins with, its trunk included (the one that ships)
# DATA     folder of real frames for benchmarks/real_frames; those figures are left out without it
set -euo pipefail
begin=$(date +%s)
out=$(realpath -m "${1:?usage: gpu_run.sh OUT [FRAMES [SECONDS]]}")
frames=${2:-4800} seconds=${3:-480}
more=("${@:4}")
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
python=${PYTHON:-python3}
mkdir -p "$out"
amodal() { "$python" -c "from amodal_ros.cli.main import main; main()" "$@"; }

init=${INIT:-$("$python" -c 'from amodal_core.models.registry import shipped; print(shipped("flagship"))')}

# Rendering keeps every core busy; a third of the time is enough for 4800 frames on 16 cores.
cores=$(nproc)
share=$((frames / 6))
sources=""
for k in 1 2 3 4 5 6; do
  case $k in
    1) how="size: [621, 188], structures: 0.5" ;;
    2) how="size: [621, 188], randomise: true" ;;
    3) how="size: [480, 360], focal: 470, randomise: true" ;;
    4) how="size: [640, 360], camera: asd, randomise: true" ;;
    5) how="size: [900, 272], randomise: true" ;;
    6) how="size: [640, 256], focal: 520, structures: 0.5" ;;
  esac
  sources+="{synthetic: {frames: $share, seed: $k, length: 6, $how}}, "
done
common=(training/configs/synthetic/flagship_nanodet_cpu.yaml "train=[$sources]"
  "init=$init" "out=$out" "cache=$out/cache" "workers=$((cores - 1))"
  batch_size=32 schedule.warm_up=100 log_every=20 save_every=200 evaluate_every=0)

# A hundred steps, which render everything first, tell how long a step takes.
if [ -z "${STEPS:-}" ] && [ ! -f "$out/last.pt" ]; then
  amodal train "${common[@]}" "out=$out/first" steps=100 held_out=[] "${more[@]}"
  speed=$(grep -oE '"images_per_second": [0-9.]+' "$out/first/metrics.jsonl" | tail -n 1 | cut -d' ' -f2)
  left=$((seconds - ($(date +%s) - begin)))
  STEPS=$("$python" -c "print(max(200, int($speed * $left / 32)))")
  echo "$left s are left for $STEPS steps at $speed images a second"
fi
steps=${STEPS:-$(cat "$out/steps")}
echo "$steps" > "$out/steps"
amodal train "${common[@]}" "steps=$steps" "${more[@]}"

{
  echo "steps $steps, $(date -u), $(git rev-parse HEAD 2>/dev/null || true)"
  tail -n 1 "$out/metrics.jsonl"
  if [ -n "${DATA:-}" ]; then
    model="new=flagship:$out/final.safetensors"
    "$python" benchmarks/real_frames/kitti.py "$DATA" "$model" "blind=${model#*=},scans=no"
    "$python" benchmarks/real_frames/camvid.py "$DATA/camvid_val" "$model"
  fi
} | tee "$out/figures.txt"
