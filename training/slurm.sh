#!/usr/bin/env bash
# Template for SLURM: copy it, fill in partition and paths, then
#   sbatch slurm.sh training/configs/kins/aisformer.yaml [key=value ...]
# One task a node; torchrun starts a process a GPU. The run's folder and cache must be seen by all
# nodes. Five minutes before the time limit the run is told to stop: it saves its state after the
# current step, and the job goes back into the queue, where it continues exactly.
#SBATCH --job-name=amodal-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

PROJECT=${PROJECT:-$SLURM_SUBMIT_DIR}
source "$PROJECT/.venv/bin/activate"
cd "$PROJECT"
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=4

again=0
stop() {
  again=1
  scancel --signal=TERM "$SLURM_JOB_ID.0"
}
trap stop TERM

srun torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" \
  --nproc-per-node gpu \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$HEAD:29500" \
  -m training.train "$@" &
status=0
wait $! || status=$?
if ((again)); then
  wait || true # for the last step and the state's file
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
