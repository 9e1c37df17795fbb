#!/usr/bin/env bash
# Builds KenLM's estimator (lmplz, build_binary) from the package's own source distribution into PREFIX/bin.
#
#   scripts/build_lmplz.sh /path/to/venv        # once; again: "already there", at once
#
# Needs a C++ compiler, cmake, zlib and Boost (headers, program_options, system, thread, test). As root on Debian or
# Ubuntu, missing packages are installed; otherwise they are named. Exit status: 0 built or already there, 1 the build
# failed, 2 wrong usage, 3 something must be installed first. About half a minute on two cores.
set -euo pipefail

version=0.3.0
packages=(g++ make cmake zlib1g-dev libboost-dev libboost-program-options-dev libboost-system-dev libboost-thread-dev
    libboost-test-dev)

if [ $# -ne 1 ]; then
    echo "usage: $0 PREFIX" >&2
    exit 2
fi
mkdir -p "$1/bin"
prefix=$(cd "$1" && pwd)

# `lmplz --help` ends with status 1; that it speaks at all shows that it runs on this machine.
if [[ "$("$prefix/bin/lmplz" --help 2>&1 || true)" == *Kneser-Ney* && -x "$prefix/bin/build_binary" ]]; then
    echo "lmplz is already there: $prefix/bin/lmplz"
    exit 0
fi

complete() {
    command -v cmake >/dev/null && command -v make >/dev/null && command -v "${CXX:-c++}" >/dev/null || return 1
    local headers="boost/program_options.hpp boost/thread.hpp boost/test/unit_test.hpp zlib.h"
    for header in $headers; do
        echo "#include <$header>" | "${CXX:-c++}" -E -x c++ - >/dev/null 2>&1 || return 1
    done
}

if ! complete; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing ${packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null ||
            { apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null; } ||
            { echo "apt-get could not install: ${packages[*]}" >&2; exit 3; }
    else
        echo "lmplz needs a C++ compiler, cmake, zlib and Boost. On Debian or Ubuntu, as root:" >&2
        echo "    apt-get install ${packages[*]}" >&2
        echo "then run this again: $0 $1" >&2
        exit 3
    fi
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=python3
if [ -x "$prefix/bin/python" ]; then python="$prefix/bin/python"; fi

log="$work/log"
# Chained, since `set -e` does not reach into a condition. Static Boost: the programs then run without Boost installed.
build() {
    "$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary kenlm -d "$work" "kenlm==$version" &&
        tar -xzf "$work/kenlm-$version.tar.gz" -C "$work" &&
        cmake -S "$work/kenlm-$version" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DKENLM_MAX_ORDER=6 \
            -DBoost_USE_STATIC_LIBS=ON &&
        cmake --build "$work/build" --parallel "$(nproc)" --target lmplz build_binary
}
echo "building lmplz from the source distribution of kenlm $version"
if ! build >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "building lmplz failed (the end of its output is above)" >&2
    exit 1
fi
# Renamed into place: an interrupted copy never looks like a finished build. lmplz last: it is what is looked for.
for program in build_binary lmplz; do
    cp "$work/build/bin/$program" "$prefix/bin/.$program.new"
    mv "$prefix/bin/.$program.new" "$prefix/bin/$program"
done
echo "lmplz is ready: $prefix/bin/lmplz"
