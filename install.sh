#!/bin/sh
# Installs gem_plugin into a virtual environment of its own; shows it at work (--demo) or tests it (--test).
# Safe to run again: what is already there is kept or brought up to date. No compiler is needed.
set -eu

TORCH_VERSION=2.13.0
OLDEST_PYTHON=3.10
NEWEST_PYTHON=3.14

usage() {
    cat <<'END'
usage: ./install.sh [--demo | --test] [options] [-- arguments for pytest]

  --demo             install, then run the main job on a simulated data set (about a minute);
                     writes ./gem_demo
  --test             install with what the tests need, then run them
  --prefix DIR       install for everybody: leaves DIR/bin/gem-external, the rest in DIR/lib/gem-plugin;
                     DIR may be read-only afterwards. Without it: .venv beside this script
  --cpu              take a CPU build of torch where one is offered (much smaller)
  --cuda             add CuPy for the CUDA version that torch was built for
  --torch-index URL  take torch from this package index, e.g. one that holds CPU builds
  --python PROGRAM   the Python to use (3.10 to 3.14); without it the first suitable one on the PATH
  --help             this text
END
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

parse_arguments() {
    action=install prefix='' build=any torch_index='' python=''
    while [ $# -gt 0 ]; do
        case $1 in
        --demo | --test)
            [ "$action" = install ] || [ "$action" = "${1#--}" ] || fail "--demo and --test exclude each other: run one after the other"
            action=${1#--}
            ;;
        --cpu | --cuda)
            [ "$build" = any ] || [ "$build" = "${1#--}" ] || fail "--cpu and --cuda exclude each other: choose one"
            build=${1#--}
            ;;
        --prefix | --torch-index | --python)
            case ${2-} in '' | --*) fail "$1 needs a value (see ./install.sh --help)" ;; esac
            case $1 in
            --prefix) prefix=$2 ;;
            --torch-index) torch_index=$2 ;;
            --python) python=$2 ;;
            esac
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        --)
            shift
            break
            ;;
        *) fail "unknown option '$1' (see ./install.sh --help)" ;;
        esac
        shift
    done
    remaining_arguments=$#
    [ "$remaining_arguments" = 0 ] || [ "$action" = test ] || fail "arguments after -- are for pytest: they need --test"
}

# 0 if $1 is a Python that can run the program; 2 if its version is wrong; 1 if it does not start.
check_python() {
    "$1" -c "
import sys
oldest, newest = (tuple(map(int, v.split('.'))) for v in ('$OLDEST_PYTHON', '$NEWEST_PYTHON'))
sys.exit(0 if oldest <= sys.version_info[:2] <= newest else 2)" 2>/dev/null
}

find_python() {
    if [ -n "$python" ]; then
        check_python "$python" && return
        fail "--python $python: this is not a Python $OLDEST_PYTHON to $NEWEST_PYTHON; name another one"
    fi
    seen=''
    for python in python3 python3.13 python3.12 python3.14 python3.11 python3.10 python; do
        command -v "$python" >/dev/null 2>&1 || continue
        check_python "$python" && return
        seen="$seen $("$python" -V 2>&1 || true)"
    done
    advice="install one (Debian or Ubuntu: apt install python3 python3-venv; conda: conda create -n gem python=3.12, then conda activate gem)"
    [ -n "$seen" ] || fail "no Python was found on the PATH; a Python $OLDEST_PYTHON to $NEWEST_PYTHON is needed: $advice"
    fail "found only$seen; a Python $OLDEST_PYTHON to $NEWEST_PYTHON is needed: $advice, or name one with --python"
}

make_environment() {
    if [ -x "$environment/bin/python" ] && "$environment/bin/python" -c 'import pip' 2>/dev/null; then
        say "Using the virtual environment $environment"
        return
    fi
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module (Debian or Ubuntu: apt install python3-venv; conda's Python has it: conda create -n gem python=3.12)"
    if [ -e "$environment" ] && [ ! -f "$environment/pyvenv.cfg" ]; then
        fail "$environment exists and is no virtual environment: move it away, or choose another place with --prefix"
    fi
    say "Making the virtual environment $environment with $("$python" -V)"
    mkdir -p "$(dirname "$environment")" 2>/dev/null || fail "cannot make $(dirname "$environment"): choose a writable place with --prefix"
    "$python" -m venv --clear "$environment" || fail "cannot make the virtual environment $environment: is the place writable, and is there room?"
}

pip_install() {
    quiet=--quiet
    [ ! -t 1 ] || quiet=''
    # shellcheck disable=SC2086
    "$environment/bin/python" -m pip install $quiet --retries 2 --disable-pip-version-check "$@"
}

cannot_fetch() {
    fail "pip could not install $1 (its own words are above). Is this machine online, is there room on the disk? Behind a proxy set https_proxy; with a local mirror set PIP_INDEX_URL or --torch-index"
}

install_torch() {
    say "Installing torch $TORCH_VERSION (the largest part)"
    if [ -n "$torch_index" ]; then
        pip_install --index-url "$torch_index" "torch==$TORCH_VERSION" || cannot_fetch "torch $TORCH_VERSION from $torch_index"
    elif [ "$build" != cpu ]; then
        pip_install "torch==$TORCH_VERSION" || cannot_fetch "torch $TORCH_VERSION"
    elif ! pip_install "torch==$TORCH_VERSION+cpu" 2>/dev/null; then
        say "No separate CPU build is offered here: taking the ordinary one, which runs on CPUs too (--torch-index names an index of CPU builds)"
        pip_install "torch==$TORCH_VERSION" || cannot_fetch "torch $TORCH_VERSION"
    fi
}

# The CuPy extra that matches torch; both must be built for one CUDA major version.
cuda_extra() {
    major=$("$environment/bin/python" -c 'import torch; print((torch.version.cuda or "none").split(".")[0])')
    case $major in
    12 | 13) echo "cuda$major" ;;
    none) fail "--cuda: the torch in $environment is a CPU build; remove that folder and run again with a --torch-index of CUDA builds" ;;
    *) fail "--cuda: torch was built for CUDA $major, but only 12 and 13 are supported: name another --torch-index" ;;
    esac
}

install_package() {
    extras=''
    [ "$action" != test ] || extras=test
    if [ "$build" = cuda ]; then
        extra=$(cuda_extra)
        extras=${extras:+$extras,}$extra
    fi
    say "Installing gem_plugin${extras:+ with the extras $extras}"
    if [ -n "$prefix" ]; then # a copy, which does not need this folder afterwards
        pip_install "$source_folder${extras:+[$extras]}" || cannot_fetch "gem_plugin"
    else
        pip_install --editable "$source_folder${extras:+[$extras]}" || cannot_fetch "gem_plugin"
    fi
}

# An environment borrows its Python: one in a home folder is often closed to everybody else.
warn_of_private_python() {
    home=$("$environment/bin/python" -c 'import sys; print(sys.base_prefix)')
    case $home in
    "${HOME:-/nonexistent}"/*) say "Note: this Python lives in $home; other users need to be able to read it (or name another one with --python)" ;;
    esac
}

# $1 as one word of a shell script.
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }

# DIR/bin/gem-external: shields the program from other Pythons' settings and keeps compiled kernels out of DIR.
write_launcher() {
    mkdir -p "$prefix/bin"
    cat >"$prefix/bin/gem-external.new" <<END
#!/bin/sh
unset PYTHONHOME PYTHONPATH
if [ -z "\${NUMBA_CACHE_DIR:-}" ]; then
    NUMBA_CACHE_DIR=\${XDG_CACHE_HOME:-\${HOME:-/nonexistent}/.cache}/gem_plugin/numba
    if ! mkdir -p "\$NUMBA_CACHE_DIR" 2>/dev/null || [ ! -w "\$NUMBA_CACHE_DIR" ]; then
        NUMBA_CACHE_DIR=\$(mktemp -d) # no home to write to: compile for this run alone
    fi
    export NUMBA_CACHE_DIR
fi
GEM_LAUNCHER=$(quoted "$program") # what to type to run this again
export GEM_LAUNCHER
exec $(quoted "$environment/bin/gem-external") "\$@"
END
    chmod 755 "$prefix/bin/gem-external.new"
    mv -f "$prefix/bin/gem-external.new" "$prefix/bin/gem-external"
}

finish() {
    case $action in
    test)
        say "Running the tests"
        cd "$source_folder"
        exec "$environment/bin/python" -m pytest "$@"
        ;;
    demo)
        "$program" demo --o "$PWD/gem_demo" || fail "the demonstration failed: its own words are above"
        ;;
    esac
    say ""
    say "gem-external is installed: $program"
    say "Type that path as the 'External executable' of RELION's External job, or put its folder on the PATH."
}

main() {
    parse_arguments "$@"
    [ "$remaining_arguments" = 0 ] || shift $(($# - remaining_arguments))
    [ "$remaining_arguments" != 0 ] || set --
    unset PYTHONHOME PYTHONPATH # another Python's settings, e.g. from an environment module
    source_folder=$(cd "$(dirname "$0")" && pwd)
    [ -f "$source_folder/pyproject.toml" ] || fail "pyproject.toml is not beside install.sh: run it from the unpacked source"
    if [ -n "$prefix" ]; then
        umask 022
        mkdir -p "$prefix" 2>/dev/null || fail "--prefix $prefix: cannot make this folder; choose a writable place"
        [ -w "$prefix" ] || fail "--prefix $prefix: cannot write there; choose a writable place"
        prefix=$(cd "$prefix" && pwd)
        environment=$prefix/lib/gem-plugin program=$prefix/bin/gem-external
    else
        environment=$source_folder/.venv program=$source_folder/.venv/bin/gem-external
    fi
    find_python
    make_environment
    pip_install 'pip>=23' || cannot_fetch "pip"
    install_torch
    install_package
    if [ -n "$prefix" ]; then
        write_launcher
        warn_of_private_python
    fi
    finish "$@"
}

main "$@"
