#!/bin/sh
# Runs gem-external once in every task of a SLURM allocation: one job on several machines. Give the path of this file
# as 'External executable' with a submission script that asks for several tasks, such as slurm_nodes.sh beside it;
# RELION cannot put srun in front of an External job's command itself. Outside SLURM it runs one process.

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if [ -z "${SLURM_JOB_NODELIST:-}" ]; then
    exec "$here/gem-external.sh" "$@"
fi

# Where the processes meet: the first machine, at a port that few other jobs have.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# If one process ends badly, the others end, too.
exec srun --kill-on-bad-exit=1 "$here/gem-external.sh" "$@"
