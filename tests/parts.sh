# shellcheck shell=bash
# Shared by the scripts of tests/: where the real parts are, and how to tell that one is missing.
# To be sourced; it does nothing by itself.

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cache="$repository/.cache"

# tests/kafka/pom.xml pins the version; this names the folder.
kafka_version=4.3.0
# shellcheck disable=SC2034  # used by the scripts that source this file
kafka_jars="$cache/kafka-$kafka_version"
prometheus_folder="$cache/prometheus"

program="$(cd -- "$(dirname -- "$0")" && pwd)/$(basename -- "$0")"
program=${program#"$repository/"}

say() {
    printf '%s: %s\n' "$program" "$*" >&2
}

die() {
    say "$*"
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

java_major() {
    # 'openjdk version "17.0.15" 2025-04-15' has major version 17; Java 8 calls itself "1.8".
    "$1" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' || true
}

# Prints the first Java that is new enough for the broker. The one in PATH may be an older one while a new enough
# one is installed beside it.
find_java() {
    local candidate major
    for candidate in "${CUSTOMER_REACH_TEST_JAVA:-}" "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)" \
        /usr/lib/jvm/*/bin/java; do
        [[ -n $candidate && -x $candidate ]] || continue
        major=$(java_major "$candidate")
        if [[ -n $major ]] && ((major >= 17)); then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# find_from_prometheus prometheus|promtool: the installed one, else the one that tests/prepare unpacked.
find_from_prometheus() {
    if have "$1"; then
        command -v "$1"
    elif [[ -x "$prometheus_folder/usr/bin/$1" ]]; then
        printf '%s\n' "$prometheus_folder/usr/bin/$1"
    else
        return 1
    fi
}

# Whether the jars are there and are those of today's pom.xml: the copy beside them was put there last.
kafka_is_fetched() {
    cmp -s "$repository/tests/kafka/pom.xml" "$kafka_jars/pom.xml"
}

# broker_runs PID DIR: whether that process is the broker of that folder, and not another one that got its number.
# A dead process that nobody has waited for has no command line, and so counts as gone.
broker_runs() {
    local mark="-Dcustomer.reach.broker=$2"
    if [[ -d /proc/self ]]; then
        [[ -r /proc/$1/cmdline ]] && tr "\0" "\n" 2>/dev/null <"/proc/$1/cmdline" | grep -xF -e "$mark" >/dev/null
    else
        ps -o args= -p "$1" 2>/dev/null | grep -F -e "$mark" >/dev/null
    fi
}
