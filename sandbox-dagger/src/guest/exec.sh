# The supervisor of one command. It always exits 0 and says on stdout what became of the command.
#
# Set before: nonce cwd path prog so se limit limits input, and as the positional parameters the command
# with 'env -i' and its environment in front.
# It must never trust the command: everything it reads back is its own file or /proc.
exec 2>/dev/null
d=/dev/shm/.sandbox.$$
mkdir -m 700 "$d" || { d=/tmp/.sandbox.$$; mkdir -p /tmp; mkdir -m 700 "$d"; } || {
    echo "frame $nonce"; echo "no nowhere"; echo "end $nonce"; exit 0
}
clean() { rm -rf "$d"; if [ "$input" != /dev/null ]; then rm -f -- "$input"; fi; }
no() { echo "frame $nonce"; echo "no $1"; echo "end $nonce"; clean; exit 0; }
now() { read -r up rest </proc/uptime; now=${up%.*}${up#*.}; }

if ! cd -- "$cwd"; then
    if [ -d "$cwd" ]; then no cwd-denied; fi
    q=$cwd
    while [ -n "$q" ]; do
        if [ -d "$q" ]; then break; fi
        if [ -e "$q" ]; then no cwd-not-a-directory; fi
        q=${q%/*}
    done
    no cwd-not-found
fi

# What would keep the program from starting is found out before, because a code of 126 or 127 may
# just as well be the program's own.
found= denied=
case $prog in
*/*) found=$prog; if [ ! -e "$found" ]; then no command-not-found; fi ;;
*)
    IFS=:; set -f
    for dir in $path; do
        if [ -z "$dir" ]; then dir=.; fi
        if [ -f "$dir/$prog" ]; then
            if [ -x "$dir/$prog" ]; then found=$dir/$prog; break; fi
            denied=1
        fi
    done
    unset IFS; set +f
    if [ -z "$found" ]; then if [ -n "$denied" ]; then no not-executable; fi; no command-not-found; fi ;;
esac
if [ ! -f "$found" ] || [ ! -x "$found" ]; then no not-executable; fi
if [ "$limits" != : ]; then (eval "$limits") || no limits; fi
if [ -r "$found" ]; then
    # The first byte of a binary is no character that could be printed.
    case $(head -c 4 -- "$found") in
    [!!-~]ELF) ;;
    '#!'*)
        IFS= read -r line <"$found"
        line=${line#'#!'}; line=${line#"${line%%[! 	]*}"}; line=${line%%[ 	]*}
        if [ ! -e "$line" ]; then no command-not-found; fi ;;
    *) no not-executable ;;
    esac
fi

# Each stream: tee to a counter and to what keeps the first bytes. Nobody is held up.
mkfifo "$d/o" "$d/o1" "$d/o2" "$d/e" "$d/e1" "$d/e2" "$d/pid" "$d/go" || no nowhere
for s in o e; do
    if [ $s = o ]; then keep=$so; else keep=$se; fi
    (trap '' PIPE; exec tee "$d/${s}1" <"$d/$s" >"$d/${s}2") &
    head -c "$keep" <"$d/${s}1" >"$d/$s.kept" &
    wc -c <"$d/${s}2" >"$d/$s.count" &
done

# The parent of the command is stopped before the command starts, so that nobody reaps it: only a
# zombie tells in /proc whether a signal killed it. No '&' is used, because that would have the
# command ignore SIGINT and SIGQUIT.
session=
if command -v setsid >/dev/null; then session=setsid; fi
export d session input limits
/bin/sh -c '
    ( exec 2>/dev/null; read -r me rest </proc/self/stat; kill -STOP $$
      echo "$me" >"$d/pid"; read -r x <"$d/go"; eval "$limits"
      exec $session "$@" <"$input" >"$d/o" 2>"$d/e" ); :' sh "${@}" | {
    read -r main <"$d/pid"
    keep=" "
    for p in /proc/[0-9]*; do
        if [ "$p" != "/proc/$main" ]; then keep="$keep$p "; fi
    done
    read -r line <"/proc/$main/stat"
    set -- ${line##*) }
    parent=$2
    # The signal is on its way: a parent that is not yet stopped would reap all the same.
    n=0
    while read -r line <"/proc/$parent/stat"; do
        case ${line##*) } in T*) break ;; esac
        n=$((n + 1))
        if [ $n -gt 20 ]; then sleep 0.001 || sleep 1; fi
    done
    now; t0=$now n=0
    echo >"$d/go"
    while :; do
        line=
        read -r line <"/proc/$main/stat" || { code=gone; break; }
        rest=${line##*) }
        set -- $rest
        case $1 in Z | X) for code in "$@"; do :; done; break ;; esac
        now
        if [ "$limit" -gt 0 ] && [ $((now - t0)) -ge "$limit" ]; then code=timeout; break; fi
        n=$((n + 1))
        if [ $n -lt 10 ]; then sleep 0.001 || sleep 1
        elif [ $n -lt 50 ]; then sleep 0.01 || sleep 1
        else sleep 0.05 || sleep 1; fi
    done
    echo "$code" >"$d/code"
    # Everything that is not the supervisor's own goes, daemons included: nothing outlives a
    # command here, and what holds a pipe must not hold the answer.
    r=0
    while [ $r -lt 200 ]; do
        left=
        for p in /proc/[0-9]*; do
            case $keep in *" $p "*) continue ;; esac
            line=
            read -r line <"$p/stat" || continue
            case ${line##*) } in Z* | X*) continue ;; esac
            left="$left ${p#/proc/}"
        done
        if [ -z "$left" ]; then break; fi
        # All are stopped first: whoever saw another die would say so, or go on to its next step.
        kill -STOP $left
        kill -9 $left
        r=$((r + 1))
        if [ $r -gt 5 ]; then sleep 0.01; fi
    done
    if [ -n "$parent" ]; then kill -9 "$parent"; fi
}
wait
echo "frame $nonce"
read -r code <"$d/code" || code=gone
echo "exit $code"
for s in o e; do
    read -r count <"$d/$s.count" || count=0
    echo "stream $count"
    if [ -s "$d/$s.kept" ]; then base64 <"$d/$s.kept"; fi
    echo .
done
clean
echo "end $nonce"
