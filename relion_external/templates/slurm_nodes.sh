#!/bin/bash
# A submission script for one job on several machines: RELION's 'Standard submission script' field, with sbatch as
# 'Queue submit command' and gem-external-nodes.sh, beside this file, as 'External executable'. See slurm.sh for what
# is said there and not here.
#SBATCH --job-name=XXXnameXXX
#SBATCH --partition=XXXqueueXXX
#SBATCH --output=XXXoutfileXXX
#SBATCH --error=XXXerrfileXXX
#SBATCH --open-mode=append
# One process on each machine. Particles are read by all of them, so more help while these are read; the two halves
# are fitted by two of them.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=XXXthreadsXXX
# Make these fit: 'gem-external check --in_parts ...' says what a run takes, on each machine.
#SBATCH --mem=16G
#SBATCH --time=12:00:00

trap : TERM

# Load or activate here whatever puts gem-external on the PATH, on every machine:
# module load gem-external

XXXcommandXXX
