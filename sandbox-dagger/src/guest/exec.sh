# The supervisor of one command. It always exits 0 and says on stdout what became of the command.
#
# Set before: nonce cwd path program stdout_limit stderr_limit limit grace limits input control piped, and as
# the positional parameters the command with 'env -i' and its environment in front. 'control' is empty,
# or the directory in which a spawned command finds its input and its signals: its output goes on in
# pieces then, as it comes. 'piped' is not empty if its input is found there as well.
# It must never trust the command: everything it reads back is its own file or /proc. What the
# command writes goes on to the engine at once, standard output by stdout and standard error by
# stderr: kept here, it would fill /dev/shm, which the command may fill as well.
exec 3>&2 4>&1 2>/dev/null
echo "frame $nonce"
work=/dev/shm/.sandbox.$$
mkdir -m 700 "$work" || { work=/tmp/.sandbox.$$; mkdir -p /tmp; mkdir -m 700 "$work"; } || {
    echo "no nowhere"; echo "end $nonce"; exit 0
}
clean() {
    rm -rf "$work"
    if [ "$input" != /dev/null ]; then rm -f -- "$input"; fi
    if [ -n "$control" ]; then rm -f -- "$control"/*; fi
}
no() { echo "no $1"; echo "end $nonce"; clean; exit 0; }
now() { read -r up rest </proc/uptime; now=${up%.*}${up#*.}; }
# Whether the kernel runs the ELF file $found: if not, 'env' would run it as a shell script. Its
# header must be of this machine, as that of the shell is, and whole. In base64, four letters are
# three bytes.
elf() {
    own=$(head -c 57 "/proc/$$/exe" | base64) header=$(head -c 57 -- "$found" | base64)
    own_machine=${own#????????????????????????} own_machine=${own_machine%"${own_machine#????}"}
    machine=${header#????????????????????????} machine=${machine%"${machine#????}"}
    size=$(stat -L -c %s -- "$found")
    case ${own%"${own#????????}"}.$own_machine.${header%"${header#????????}"}.$machine in
    f0VMRgIB.PgAB.f0VMRgIB.PgAB | f0VMRgIB.twAB.f0VMRgIB.twAB | f0VMRgIB.8wAB.f0VMRgIB.8wAB)
        # Of 64 bits (x86-64, arm64, RISC-V): the size and number of the program's segments.
        segments=${header#????????????????????????????????????????????????????????????????????????}
        least=120 entry=OA ;;
    f0VMRgIB.PgAB.f0VMRgEB.AwAB | f0VMRgIB.twAB.f0VMRgEB.KAAB | f0VMRgEB.*.f0VMRgEB."$own_machine")
        # Of 32 bits, which kernels of 64 bits run as well.
        segments=${header#????????????????????????????????????????????????????????}
        least=84 entry=IA ;;
    "${header%"${header#????????}"}.$machine.${header%"${header#????????}"}.$machine") return 0 ;;
    *) return 1 ;;
    esac
    case ${header#????????????????????} in AAIA* | AAMA*) ;; *) return 1 ;; esac
    case $segments in "$entry"AA*) return 1 ;; "$entry"*) [ "$size" -ge "$least" ] ;; *) return 1 ;; esac
}

if ! cd -- "$cwd"; then
    if [ -d "$cwd" ]; then no cwd-denied; fi
    above=$cwd
    while [ -n "$above" ]; do
        if [ -d "$above" ]; then break; fi
        if [ -e "$above" ]; then no cwd-not-a-directory; fi
        above=${above%/*}
    done
    no cwd-not-found
fi

# What would keep the program from starting is found out before, because a code of 126 or 127 may
# just as well be the program's own.
found= denied=
case $program in
*/*) found=$program; if [ ! -e "$found" ]; then no command-not-found; fi ;;
*)
    IFS=:; set -f
    for dir in $path; do
        if [ -z "$dir" ]; then dir=.; fi
        if [ -f "$dir/$program" ]; then
            if [ -x "$dir/$program" ]; then found=$dir/$program; break; fi
            denied=1
        fi
    done
    unset IFS; set +f
    if [ -z "$found" ]; then if [ -n "$denied" ]; then no not-executable; fi; no command-not-found; fi ;;
esac
if [ ! -f "$found" ] || [ ! -x "$found" ]; then no not-executable; fi
if [ "$limits" != : ]; then (eval "$limits") || no limits; fi
if [ -r "$found" ]; then
    # The first byte of a binary can't be printed.
    case $(head -c 4 -- "$found") in
    [!!-~]ELF) elf || no not-executable ;;
    '#!'*)
        IFS= read -r line <"$found"
        line=${line#'#!'}; line=${line#"${line%%[! 	]*}"}; line=${line%%[ 	]*}
        if [ ! -e "$line" ]; then no command-not-found; fi ;;
    *) no not-executable ;;
    esac
fi

# What belongs to the session of the supervisor is its own, whenever it began: a spawned command is
# in another, and can't come into this one.
own=
if [ -n "$control" ]; then
    command -v setsid >/dev/null || no setsid
    read -r line <"/proc/$$/stat"
    line=${line##*) }; line=${line#* * * }; own=${line%% *}
fi

# Hands on each piece as soon as it is read: its base64, then its number and the length of that.
pieces() {
    number=0
    while :; do
        piece=$(dd bs=49152 count=1 | base64)
        if [ -z "$piece" ]; then break; fi
        number=$((number + 1))
        printf '%s\n;%s %s\n' "$piece" "$number" "${#piece}"
    done
}

# Passes on the input that comes in files with numbers, up to the end.
feed() {
    next=1
    while [ ! -e "$control/end$next" ]; do
        if [ ! -e "$control/in$next" ]; then sleep 0.02 || sleep 1; continue; fi
        cat "$control/in$next" || break
        rm -f "$control/in$next"
        next=$((next + 1))
    done
}

# Each stream: tee to a counter and to what lets the first bytes through. Neither holds the other up.
mkfifo "$work/o" "$work/o1" "$work/o2" "$work/o3" "$work/e" "$work/e1" "$work/e2" "$work/e3" "$work/pid" "$work/go" || no nowhere
echo "frame $nonce" >&3
for stream in o e; do
    # Counts are written over these spaces, which needs no space that the command could take.
    echo "                    " >"$work/$stream.count" || no nowhere
    if [ $stream = o ]; then keep=$stdout_limit to=4; else keep=$stderr_limit to=3; fi
    (trap '' PIPE; exec tee "$work/${stream}1" <"$work/$stream" >"$work/${stream}2") &
    eval "tee_$stream=\$!"
    if [ -n "$control" ]; then
        pieces <"$work/${stream}1" >&$to &
    else
        head -c "$keep" <"$work/${stream}1" >"$work/${stream}3" &
        base64 <"$work/${stream}3" >&$to &
    fi
    wc -c <"$work/${stream}2" 1<>"$work/$stream.count" &
done
feeder=
if [ -n "$piped" ]; then
    input=$work/in
    mkfifo "$input" || no nowhere
    (feed >"$input") &
    feeder=$!
fi

# Waits for the end of both streams, but no longer than the grace after the last that was written, nor
# longer than ten times that: what still writes is let finish, and what writes for ever is not
# waited for. Nor longer than the command may take, or is wanted.
settle() {
    now; begun=$now last=$now seen= looks=0
    while :; do
        read -r o_count <"$work/o.count"
        read -r e_count <"$work/e.count"
        if [ -n "$o_count" ] && [ -n "$e_count" ]; then break; fi
        read -r name o_read <"/proc/$tee_o/io"
        read -r name e_read <"/proc/$tee_e/io"
        now
        if [ "$o_read $e_read" != "$seen" ]; then seen="$o_read $e_read" last=$now; fi
        if [ $((now - last)) -gt "$grace" ] || [ $((now - begun)) -gt $((grace * 10)) ]; then break; fi
        if late; then code=timeout; break; fi
        heed || break
        pace
    done
}
# Whether the command has had its time.
late() { [ "$limit" -gt 0 ] && [ $((now - started)) -ge "$limit" ]; }
# Passes on the next signal, unless it is for all: that ends the command.
heed() {
    if [ -z "$control" ] || [ ! -e "$control/signal$asked" ]; then return 0; fi
    read -r word <"$control/signal$asked"
    asked=$((asked + 1))
    if [ "$word" = all ]; then return 1; fi
    kill -"$word" "$main"
    return 0
}
# Sleeps until the next look: the more there were, the longer.
pace() {
    looks=$((looks + 1))
    if [ $looks -lt 10 ]; then sleep 0.001 || sleep 1
    elif [ $looks -lt 50 ]; then sleep 0.01 || sleep 1
    else sleep 0.05 || sleep 1; fi
}

# Starts the command, waits for its end or its timeout, ends everything that it left, and says its
# wait status.
watch() {
    read -r main <"$work/pid"
    if [ -z "$main" ]; then echo arguments; return; fi
    keep=" "
    for entry in /proc/[0-9]*; do
        if [ "$entry" != "/proc/$main" ]; then keep="$keep$entry "; fi
    done
    read -r line <"/proc/$main/stat"
    set -- ${line##*) }
    parent=$2
    # The signal is on its way: a parent that is not yet stopped would reap all the same.
    looks=0
    while read -r line <"/proc/$parent/stat"; do
        case ${line##*) } in T*) break ;; esac
        looks=$((looks + 1))
        if [ $looks -gt 20 ]; then sleep 0.001 || sleep 1; fi
    done
    # From here on the command has started, whatever it may write.
    echo started >&4
    now; started=$now looks=0 asked=1
    echo >"$work/go"
    while :; do
        line=
        read -r line <"/proc/$main/stat" || { code=gone; break; }
        rest=${line##*) }
        set -- $rest
        case $1 in Z | X) for code in "$@"; do :; done; break ;; esac
        now
        if late; then code=timeout; break; fi
        heed || { code=9; break; }
        pace
    done
    case $code in timeout | 9) ;; *) settle ;; esac
    # Everything that is not the supervisor's own goes, daemons included: nothing outlives a
    # command here, and what holds a pipe must not hold the answer.
    round=0
    while [ $round -lt 200 ]; do
        left=
        for entry in /proc/[0-9]*; do
            case $keep in *" $entry "*) continue ;; esac
            line=
            read -r line <"$entry/stat" || continue
            case ${line##*) } in Z* | X*) continue ;; esac
            if [ -n "$own" ] && [ "$entry" != "/proc/$main" ]; then
                line=${line##*) }; line=${line#* * * }
                if [ "${line%% *}" = "$own" ]; then continue; fi
            fi
            left="$left ${entry#/proc/}"
        done
        if [ -z "$left" ]; then break; fi
        # All are stopped first: one that saw another die would report it, or go on to its next step.
        kill -STOP $left
        kill -9 $left
        round=$((round + 1))
        if [ $round -gt 5 ]; then sleep 0.01; fi
    done
    # What has ended is counted by the process that waited for it: the parent, once it goes on, and
    # pid 1, for what the command left behind.
    written=
    if [ -n "$parent" ]; then
        if [ -z "$left" ]; then kill -CONT "$parent"; read -r written; fi
        kill -9 "$parent"
    fi
    case $written in '' | *[!0-9]*) written=0 ;; esac
    while read -r name count; do
        case $name in write_bytes:) written=$((written + count)) ;; esac
    done </proc/1/io
    echo "$code $written"
}

# The parent of the command is stopped before the command starts, so that it is not reaped: only a
# zombie tells in /proc whether a signal killed it. No '&' is used, because that would have the
# command ignore SIGINT and SIGQUIT. A shell that can't be given the arguments ends with 126 or 127.
session=
if command -v setsid >/dev/null; then session=setsid; fi
export work session input limits
said=$({
    /bin/sh -c '
    ( exec 2>/dev/null; read -r me rest </proc/self/stat; kill -STOP $$
      echo "$me" >"$work/pid"; read -r word <"$work/go"; eval "$limits"
      exec $session "$@" <"$input" >"$work/o" 2>"$work/e" 3>&- 4>&- )
    while read -r name count; do
        case $name in write_bytes:) echo "$count" ;; esac
    done </proc/self/io' sh "${@}"
    case $? in 126 | 127) echo >"$work/pid" ;; esac
} | watch)
code=${said%% *}
if [ "$code" = arguments ]; then
    # What waits for a writer of the streams must end.
    : >"$work/o"; : >"$work/e"; wait
    no arguments
fi
# What was ended before it opened its streams leaves readers that wait for a writer. An opener of a
# stream whose reader has ended waits as well, and is ended.
if [ "$code" != 0 ]; then
    (: >"$work/o") & open_o=$!
    (: >"$work/e") & open_e=$!
    wait "$tee_o" "$tee_e"
    kill -9 "$open_o" "$open_e"
fi
if [ -n "$feeder" ]; then kill -9 "$feeder"; fi
wait
echo .
echo "exit ${code:-gone}"
totals=
for stream in o e; do
    count=
    read -r count <"$work/$stream.count"
    echo "total ${count:-0}"
    totals="$totals ${count:-0}"
done
# A record of the engine that is lost must not change a number.
if [ -n "$control" ]; then echo "again ${code:-gone}$totals"; fi
echo "written ${said#* }"
echo "end $nonce"
{ echo .; echo "end $nonce"; } >&3
clean
