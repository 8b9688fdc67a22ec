#!/usr/bin/env bash
# Train on several machines. On each of them, with the same FIRST, the name of one of them:
#   FIRST=node1 NODES=2 GPUS=8 docs/examples/train_torchrun.sh fields.yaml [KEY VALUE ...]
# A process or machine that dies ends the others; all start again from the newest checkpoint in OUTPUT_DIR, which all
# machines must see, up to RESTARTS times.
set -euo pipefail
# A store of its own for each start: else processes find the addresses of those that died, and wait for them.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --nnodes "${NODES:-1}" --nproc-per-node "${GPUS:-1}" --max-restarts "${RESTARTS:-3}" \
    --rdzv-id "${JOB:-wpl}" --rdzv-backend c10d --rdzv-endpoint "${FIRST:-localhost}:${PORT:-29500}" \
    -m wpl_d2.cli train "$@"
