#!/usr/bin/env bash
# Makes .venv with trtgate, Torch-TensorRT and the development tools in it, or says in one line what is missing.
#
#   TENSORRT  rtx (the default) or standard: which Torch-TensorRT
#   PYTHON    the interpreter to use; without it, the first on PATH that fits
#
# Nothing is done when .venv/.trtgate-setup, written last, says that a set-up with the same inputs was finished, or when
# .venv is a link: it is another checkout's.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

tensorrt=${TENSORRT:-rtx}
asked_python=${PYTHON:-}
stamp=.venv/.trtgate-setup
needed_gb=10
# Of 2023 and pinned to the packages of its time; its parts that tests load work with today's.
trex=trt-engine-explorer==0.1.5
# Pinned to an older NumPy and with clients of clouds; the part that finds change points needs neither.
otava=apache-otava==0.8.0

say() { echo "setup: $*" >&2; }
die() { say "$@"; exit 1; }

# Prints the interpreter behind $1 (a pyenv shim and a virtual environment lead to it), or returns why not.
readonly not_runnable=2 wrong_version=3 no_ensurepip=4
interpreter_of() {
    local code=0
    "$1" -I -c "
import os, sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit($wrong_version)
try:
    import ensurepip, venv
except ImportError:
    sys.exit($no_ensurepip)
print(os.path.realpath(sys._base_executable))
" 2>/dev/null || code=$?
    case $code in
        0 | "$wrong_version" | "$no_ensurepip") return "$code" ;;
        *) return "$not_runnable" ;;
    esac
}

explain_no_ensurepip() {
    local version
    version=$("$1" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    die "$1 cannot make virtual environments: install the package python$version-venv (Debian, Ubuntu)," \
        "or name another Python 3.11-3.13 with PYTHON="
}

check_asked_python() {
    local code=0
    interpreter_of "$asked_python" || code=$?
    case $code in
        0) ;;
        "$wrong_version") die "PYTHON=$asked_python is $("$asked_python" -V); trtgate needs Python 3.11, 3.12 or 3.13" ;;
        "$no_ensurepip") explain_no_ensurepip "$asked_python" ;;
        *) die "PYTHON=$asked_python does not run; name a Python 3.11, 3.12 or 3.13" ;;
    esac
}

find_python() {
    local name candidate code without_ensurepip=
    for name in python3.13 python3.12 python3.11 python3; do
        while read -r candidate; do
            code=0
            interpreter_of "$candidate" || code=$?
            if ((code == 0)); then return; fi
            if ((code == no_ensurepip)); then without_ensurepip=${without_ensurepip:-$candidate}; fi
        done < <(type -aP "$name")
    done
    if [[ -n $without_ensurepip ]]; then explain_no_ensurepip "$without_ensurepip"; fi
    die "no working Python 3.11, 3.12 or 3.13 on PATH; install one, or name it with PYTHON=/path/to/python"
}

# What .venv is made from: the stamp's text.
inputs() {
    echo "$tensorrt"
    echo "$PWD"
    echo "$trex $otava"
    cat pyproject.toml constraints.txt
}

venv_fits() {
    local interpreter
    interpreter=$(readlink -e .venv/bin/python) && [[ -z $python || $interpreter == "$python" ]]
}

# Without a stamp it was left unfinished; when it was moved, its scripts name the old place.
venv_is_whole() { venv_fits && [[ -f $stamp && $(sed -n 2p "$stamp") == "$PWD" ]]; }

is_done() { venv_is_whole && [[ $(<"$stamp") == "$(inputs)" ]]; }

check_machine() {
    [[ $(uname -sm) == "Linux x86_64" ]] || die "this machine is $(uname -sm); Torch-TensorRT needs Linux x86_64"
    command -v flock >/dev/null || die "flock is missing: install the package util-linux"
}

check_disk() {
    local free_kb
    free_kb=$(df --output=avail -k . | tail -n 1)
    ((free_kb >= needed_gb * 1024 * 1024)) ||
        die "only $((free_kb / 1024 / 1024)) GB free in $PWD; a set-up needs about $needed_gb GB"
}

uninstall_tensorrt() {
    local packages
    mapfile -t packages < <(.venv/bin/uv pip freeze --python .venv/bin/python | grep -oE '^(torch-)?tensorrt[^=]*')
    if ((${#packages[@]})); then .venv/bin/uv pip uninstall --python .venv/bin/python "${packages[@]}"; fi
}

case $tensorrt in
    rtx | standard) ;;
    *) die "TENSORRT=$tensorrt is not known; it is rtx or standard" ;;
esac
python=
if [[ -n $asked_python ]]; then python=$(check_asked_python); fi
if [[ -L .venv ]] || is_done; then exit; fi

check_machine
exec 9>.venv.lock
flock --nonblock 9 || { say "waiting for another set-up of .venv"; flock 9; }
if is_done; then exit; fi

wanted=$(inputs)
if venv_is_whole; then
    say "bringing .venv up to date"
    installed=$(head -n 1 "$stamp")
    rm "$stamp"
    # torch-tensorrt and torch-tensorrt-rtx write the same files, so the one has to go before the other comes.
    if [[ $installed != "$tensorrt" ]]; then uninstall_tensorrt; fi
else
    if [[ ! -d .venv ]]; then check_disk; fi
    python=${python:-$(find_python)}
    say "installing into .venv with $python (torch and TensorRT: about 6 GB, some minutes)"
    "$python" -m venv --clear .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, every process would compile what it imports, for seconds.
.venv/bin/uv pip install --python .venv/bin/python --compile-bytecode --editable ".[$tensorrt,dev]" \
    --constraint constraints.txt --build-constraint constraints.txt
.venv/bin/uv pip install --python .venv/bin/python --compile-bytecode --no-deps "$trex" "$otava"
echo "$wanted" >"$stamp"
