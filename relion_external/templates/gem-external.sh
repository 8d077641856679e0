#!/bin/sh
# Runs gem-external from wherever it was installed: give the path of this file as 'External executable' when
# gem-external itself is not on the PATH that RELION's jobs see. Everything on the command line is passed on.
#
# Looked for, in this order: the program that the environment variable GEM_EXTERNAL names, the virtual environment
# that this file is installed in, the one that install.sh made in the source folder of this file, the PATH.

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

# site-packages/relion_external/templates is five levels below the environment's root; in the source folder, which
# install.sh without --prefix does not copy, the environment is .venv, two levels up.
for program in "${GEM_EXTERNAL:-}" "$here/../../../../../bin/gem-external" "$here/../../.venv/bin/gem-external" \
    "$(command -v gem-external)"; do
    if [ -n "$program" ] && [ -x "$program" ] && [ ! -d "$program" ]; then
        exec "$program" "$@"
    fi
done

echo "gem-external: error: the program gem-external was not found; set GEM_EXTERNAL to its path" >&2

# RELION learns how a job ended from a marker in the job directory, which follows --o.
while [ $# -gt 1 ]; do
    if [ "$1" = "--o" ] && [ -d "$2" ]; then
        : > "${2%/}/RELION_JOB_EXIT_FAILURE"
    fi
    shift
done
exit 1
