#!/bin/bash
# A submission script for RELION's 'Standard submission script' field, with sbatch as 'Queue submit command'.
# RELION fills in the words between XXX. For an External job it replaces the whole line that holds the command by the
# bare command, so nothing may stand beside it, and it adds no redirection, so the two lines below must.
#SBATCH --job-name=XXXnameXXX
#SBATCH --partition=XXXqueueXXX
#SBATCH --output=XXXoutfileXXX
#SBATCH --error=XXXerrfileXXX
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=XXXthreadsXXX
# Make these fit: 'gem-external check --in_parts ...' says what a run takes.
#SBATCH --mem=16G
#SBATCH --time=12:00:00

# At the end of its time, and on scancel, SLURM sends SIGTERM: the job then ends with its marker and RELION shows it as
# aborted. This shell must outlive the job for that; the trap makes it wait.
trap : TERM

# Load or activate here whatever puts gem-external on the PATH:
# module load gem-external

XXXcommandXXX
