#!/usr/bin/env bash
# The tests that need no cluster, and with them those that compare bits and losses, as on other processors and with other
# numbers of threads. A line for each setting; the whole output of a setting lies in the folder that is printed first.
#
#     tests/portability.sh                     every setting
#     tests/portability.sh isa=SSE41 threads=4     some
#
# PYTEST_FLAGS are added to pytest's, such as PYTEST_FLAGS='--numprocesses 2 tests/training'. Exit 1 if a test fails.
set -uo pipefail
cd "$(dirname "$0")/.."

settings=(isa=default isa=SSE41 isa=AVX2 threads=1 threads=2 threads=4 aten=default aten=avx2)
python=.venv/bin/python
[ -x "$python" ] || python=python
output=$(mktemp -d)
echo "output in $output"

environment_of() {
    case $1 in
        isa=default) echo "" ;;
        isa=*) echo "ONEDNN_MAX_CPU_ISA=${1#isa=}" ;;
        threads=*) echo "OMP_NUM_THREADS=${1#threads=}" ;;
        aten=*) echo "ATEN_CPU_CAPABILITY=${1#aten=}" ;;
    esac
}

for setting in "$@"; do
    if [[ " ${settings[*]} " != *" $setting "* ]]; then
        echo "error: there is no setting $setting; there are ${settings[*]}" >&2
        exit 2
    fi
done

failed=0
for setting in "${@:-${settings[@]}}"; do
    # What this shell has set would otherwise be part of every setting.
    # shellcheck disable=SC2046,SC2086
    env -u ONEDNN_MAX_CPU_ISA -u OMP_NUM_THREADS -u ATEN_CPU_CAPABILITY $(environment_of "$setting") \
        "$python" -m pytest -q -m 'not cluster and not slow' ${PYTEST_FLAGS:-} >"$output/$setting" 2>&1
    code=$?
    counts=$(tail -n 1 "$output/$setting")
    if [ "$code" = 0 ]; then
        echo "$setting: $counts"
    else
        failed=1
        echo "$setting: exit $code: $counts"
        grep -E '^(FAILED|ERROR) ' "$output/$setting" | cut -c 1-200
    fi
done
exit "$failed"
