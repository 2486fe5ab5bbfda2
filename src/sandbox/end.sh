# Ends what an `exec` started, and all that this started: end.sh MARK. Run as whom that runs as.
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

find_marked
[ -n "$found" ] || exit 0
kill -TERM $found 2>/dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
    find_marked
    [ -n "$found" ] || exit 0
    [ "$try" -lt 5 ] || kill -KILL $found 2>/dev/null
    sleep 0.1
done
exit 1
