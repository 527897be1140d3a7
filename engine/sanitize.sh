#!/bin/sh
# Builds the engine with AddressSanitizer and UndefinedBehaviorSanitizer, runs its tests and the fuzz target with them.
#
#   engine/sanitize.sh [tests|fuzz|all] [mutations]      PYTHON names the interpreter, default: python
#   CXX=clang++ engine/sanitize.sh fuzz 100000           the same target by libFuzzer, guided by coverage
#
# Everything is built under build; the installed engine is left alone.
set -eu
cd "$(dirname "$0")/.."
what=${1:-all}
mutations=${2:-20000}
python=${PYTHON:-python}
build=$PWD/build/sanitize-$(basename "${CXX:-c++}")
target=$([ "$what" = fuzz ] && echo fuzz_weight_file || echo all)

export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DTWINRANK_FUZZ=ON -DTWINRANK_SANITIZE=ON \
  -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" >/dev/null
cmake --build "$build" -j 2 --target "$target"

if [ "$what" = fuzz ] || [ "$what" = all ]; then
  case $(grep CMAKE_CXX_COMPILER: "$build/CMakeCache.txt") in
    *clang*) "$build/fuzz_weight_file" -runs="$mutations" ;;
    *) "$build/fuzz_weight_file" "$mutations" ;;
  esac
fi

if [ "$what" = tests ] || [ "$what" = all ]; then
  rm -rf "$build/site"
  mkdir -p "$build/site"
  cp -r twinrank "$build/site/twinrank"
  cp "$build"/_engine*.so "$build/site/twinrank/"
  # -S keeps an editable install of twinrank out of the way; its dependencies are found by PYTHONPATH. Leaks are not
  # looked for: the interpreter keeps memory until the end by design. Real weights would take an hour.
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  root=$PWD
  cd "$build"
  LD_PRELOAD="$(${CXX:-c++} -print-file-name=libasan.so) $(${CXX:-c++} -print-file-name=libstdc++.so.6)" \
    ASAN_OPTIONS=detect_leaks=0 PYTHONPATH="$build/site:$packages" \
    "$python" -S -m pytest -q -p no:cacheprovider -m "not data" \
    -c "$root/pyproject.toml" --rootdir "$root" "$root/tests/models/test_native.py" "$root/tests/models/test_native_scan.py" \
    "$root/tests/test_maxsim.py"
fi
