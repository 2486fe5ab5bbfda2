# Ends what an `exec` started, and all that this started: end.sh MARK. Run as whom that runs as. What is in the container may
# be hostile, and may have used up every process that it may have: no other program is run, so that time passes in looking.
mark=$1

# The processes that carry the mark in their environment, and all of their sessions; in $found.
find_marked() {
    found='' sessions=' '
    for folder in /proc/[0-9]*; do
        while IFS= read -r text || [ -n "$text" ]; do
            case $text in *"$mark"*)
                found="$found ${folder#/proc/}"
                session "$folder" && sessions="$sessions$of "
                break
                ;;
            esac
        done <"$folder/environ"
    done 2>/dev/null
    for folder in /proc/[0-9]*; do
        session "$folder" || continue
        case $sessions in *" $of "*) found="$found ${folder#/proc/}" ;; esac
    done 2>/dev/null
}

# The session of a process, in $of; none of one that has ended and waits to be noticed.
session() {
    IFS= read -r stat <"$1/stat" || return 1
    # Its name, in parentheses, may hold anything.
    set -f
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    set +f
    case $1 in Z | X) return 1 ;; esac
    of=$4
}

# Hundredths of a second, in $now.
look_at_clock() {
    read -r now _ </proc/uptime
    now=${now%.*}${now#*.}
}

look_at_clock
begun=$now
find_marked
[ -n "$found" ] || exit 0
# shellcheck disable=SC2086
kill -TERM $found 2>/dev/null
while [ $((now - begun)) -lt 150 ]; do
    find_marked
    [ -n "$found" ] || exit 0
    look_at_clock
    # shellcheck disable=SC2086
    [ $((now - begun)) -lt 50 ] || kill -KILL $found 2>/dev/null
done
exit 1
