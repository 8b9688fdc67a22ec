#!/usr/bin/env bash
# Train on the machines of a Slurm job, one torchrun on each:
#   sbatch --nodes 2 --gpus-per-node 8 docs/examples/train_slurm.sh fields.yaml [KEY VALUE ...]
# A job that is requeued, or submitted again, goes on from the newest checkpoint in OUTPUT_DIR.
#SBATCH --job-name wpl
#SBATCH --ntasks-per-node 1
#SBATCH --requeue
#SBATCH --open-mode append
# Time for a checkpoint before the job's end.
#SBATCH --signal TERM@120
set -euo pipefail
export FIRST NODES=$SLURM_JOB_NUM_NODES GPUS=${GPUS:-${SLURM_GPUS_ON_NODE:-1}} JOB=$SLURM_JOB_ID
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A job's script is run from a copy: the other one is found from where the job was submitted.
srun bash "$SLURM_SUBMIT_DIR/docs/examples/train_torchrun.sh" "$@"
