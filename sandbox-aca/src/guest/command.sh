# One command: started at most once, watched, killed with all that it started.
# Set before: dir, nonce, mark, gate, timeout, grace, path (see launch.rs). Times are hundredths of a second.
clock() { # now: the time since the guest booted.
  read -r now _ < /proc/uptime
  now=${now%.*}${now#*.}
  while case $now in 0?*) ;; *) false ;; esac; do now=${now#0}; done
}
find_program() { # program: what execvp would execute.
  case $1 in
  */*) program=$1 ;;
  *)
    program= blocked= separators=$IFS
    IFS=:
    set -f
    for directory in $path; do
      candidate=${directory:-.}/$1
      if [ -f "$candidate" ] && [ -x "$candidate" ]; then program=$candidate; break; fi
      there "$candidate" && blocked=1
    done
    set +f
    IFS=$separators
    if [ -z "$program" ]; then
      [ "$blocked" ] && no NOEXEC
      no NOCMD
    fi
    ;;
  esac
  executable "$program" 0
}
# What the kernel refuses to execute, a C library runs as a shell script; so it is refused here.
executable() { # executable FILE DEPTH
  [ -e "$1" ] || no NOCMD
  if [ -d "$1" ] || ! [ -x "$1" ] || [ "$2" -gt 4 ]; then no NOEXEC; fi
  [ -r "$1" ] || return 0
  depth=$2 file=$1
  set -- $(od -An -v -tx1 -N120 "$file")
  case $1$2$3$4 in
  7f454c46) elf "$@" || no NOEXEC ;;
  2321*)
    IFS= read -r interpreter < "$file"
    interpreter=${interpreter#??}
    set -f
    set -- $interpreter
    set +f
    [ "$1" ] || no NOEXEC
    executable "$1" $((depth + 1))
    ;;
  *) no NOEXEC ;;
  esac
}
elf() { # elf HEADER: whether this machine executes what has so much of it, at most 120 bytes.
  [ $# -ge 64 ] || return 1
  # Whether it is a program at all.
  case ${17}${18} in 0200 | 0300 | 0002 | 0003) ;; *) return 1 ;; esac
  # Size and number of the program headers, which must be there.
  case $5 in
  01)
    [ "${43}${44}" = 2000 ] || [ "${43}${44}" = 0020 ] || return 1
    [ "${45}${46}" != 0000 ] || return 1
    ;;
  *)
    [ "${55}${56}" = 3800 ] || [ "${55}${56}" = 0038 ] || return 1
    [ "${57}${58}" != 0000 ] && [ $# -ge 120 ] || return 1
    ;;
  esac
  # Class, order of bytes and machine are those of the kernel or of the shell; or of 32 bits, which
  # x86_64 executes.
  kind=$5$6${19}${20} machine=
  { read -r machine < /proc/sys/kernel/arch; } 2> /dev/null
  case $machine:$kind in x86_64:02013e00 | x86_64:01010300 | aarch64:0201b700) return 0 ;; esac
  set -- $(od -An -v -tx1 -N20 /bin/sh)
  case $kind in "$5$6${19}${20}") return 0 ;; esac
  [ "$kind $5$6${19}${20}" = '01010300 02013e00' ]
}
state() { # status: state of the main process, code: its wait status.
  line=
  while IFS= read -r part; do line="$line$part "; done 2> /dev/null < "/proc/$pid/stat" || :
  status=
  [ "$line" ] || return 0
  set -f
  set -- ${line##*) }
  set +f
  status=$1
  code=${50}
}
# Every process that a command starts inherits a limit which nothing else has: its mark.
survivors() { # survivors: the living processes of the tree, but for the main one; busy: whether one works.
  survivors= busy=
  for entry in $(grep -lsF " $mark " /proc/[0-9]*/limits); do
    entry=${entry#/proc/}
    entry=${entry%/limits}
    case $entry in "$pid" | "$holder") continue ;; esac
    case $(grep -s '^State:' "/proc/$entry/status") in
    '' | *Z* | *X*) continue ;;
    *R* | *D*) busy=1 ;;
    esac
    survivors="$survivors $entry"
  done
  [ "$survivors" ]
}
kill_tree() {
  kill -9 "$pid" 2> /dev/null
  round=0
  while [ $round -lt 50 ] && survivors; do
    kill -9 $survivors 2> /dev/null
    round=$((round + 1))
  done
}
claim() { # Whether this one may start the command: one makes the file, or whoever cancels it a directory.
  set -C
  { true > "$dir/claim"; } 2> /dev/null
  set -- $?
  set +C
  return "$1"
}
plumb() { # Makes what the command writes to.
  mkfifo "$dir/up" "$dir/out.pipe" "$dir/err.pipe" || no NOSPACE
  streams
  exec 8> "$dir/out.pipe" 9> "$dir/err.pipe"
}
launch() { # launch INPUT CWD PROGRAM, the arguments of env: gets everything ready and starts it.
  mkdir -p "$dir"
  claim || no CLAIMED
  if ! cd "$2" 2> /dev/null; then
    [ -d "$2" ] && no PERM
    [ -e "$2" ] && no NOTDIR
    climb "$2"
  fi
  input=$1
  find_program "$3"
  shift 3
  plumb
  clock
  begun=$now
  # The program waits until its parent is `sleep`, which reaps nothing: a shell might, and then how
  # the program ended could not be read from /proc any more. Shells have two letters for the limit.
  ${apart-setsid} sh -c 'dir=$1 input=$2 gate=$3 mark=$4; shift 4
    ulimit -w "$mark" || ulimit -x "$mark" || prlimit --pid $$ --locks="$mark"
    (tries=0
      while [ $tries -lt 20000 ] && read -r name < /proc/$$/comm && [ "$name" != sleep ]; do tries=$((tries + 1)); done
      # Marked by now, so that who pauses stops this one or is seen here.
      while [ -e "$gate" ]; do sleep 0.02; done
      case $input in
      terminal) exec <&5 >&5 2>&5 5>&- ;;
      *) exec < "$input" > "$dir/out.pipe" 2> "$dir/err.pipe" ;;
      esac
      exec env "$@") &
    echo $! > "$dir/pid"; echo > "$dir/up"; exec sleep 2147483647' \
    sh "$dir" "$input" "$gate" "$mark" "$@" < /dev/null > /dev/null 2>&1 5<&${five:--} 8>&- 9>&- &
  holder=$!
  trap '' PIPE
  # Opened for both it does not wait, which a signal may interrupt.
  exec 6<> "$dir/up"
  read -r _ <&6
  exec 6<&-
  read -r pid < "$dir/pid"
}
supervise() { # Until it ended and what the rest of its tree still wrote came, or for a time.
  turns=0
  while :; do
    state
    case $status in Z | X | '') if settled; then break; fi ;; esac
    [ -e "$dir/cancel" ] && kill_tree
    clock
    if [ "$timeout" ] && [ $now -ge $((begun + timeout)) ] && ! [ -e "$dir/timeout" ]; then : > "$dir/timeout"; kill_tree; fi
    [ -z "$1" ] || [ $now -lt $((begun + $1)) ] || return 1
    turns=$((turns + 1))
    if [ $turns -lt 3 ]; then sleep 0.01; elif [ $turns -lt 6 ]; then sleep 0.02; else sleep 0.04; fi
    [ $((turns % 8)) -ne 0 ] || bound
  done
  finish
}
# What the rest of the tree writes in the moment after the main process has ended is output too: it is
# waited for until nothing has come for the grace while all of it sleeps, and for ten times that at most.
latest=
settled() { # Whether there is nothing to wait for any more.
  if [ -e "$dir/timeout" ] || [ -e "$dir/cancel" ]; then kill_tree; return 0; fi
  survivors || return 0
  after=$(written)
  clock
  if [ -z "$latest" ]; then
    turns=0 latest=$((now + 10 * grace)) quiet=$now before=$after
  elif [ "$busy" ] || [ "$after" != "$before" ]; then
    quiet=$now before=$after
  fi
  [ $now -ge $((quiet + grace)) ] || [ $now -ge $latest ]
}
# Programs in the background keep pipes that are read: what they write from now on is thrown away,
# until the last of them has ended.
drain() {
  survivors || return 0
  throw_away "$out_reader"
  throw_away "$err_reader"
}
throw_away() { # throw_away READER: takes over its pipe.
  # Never by name: the client clears the directory away as soon as it knows how the command ended, and
  # a name without a pipe would make a file. Opened for both, a pipe does not wait for its other end.
  { command exec 6<> "/proc/$1/fd/0" && command exec 3< /proc/self/fd/6; } 2> /dev/null || return 0
  exec 6>&-
  setsid cat <&3 > /dev/null 2>&1 5<&- 8>&- 9>&- &
  exec 3<&-
}
ended() { # ended BYTES BYTES KEPT KEPT: writes down how.
  clock
  why=
  [ -e "$dir/cancel" ] && why=c
  [ -e "$dir/timeout" ] && why=${why}t
  echo "D ${code:-9} $* $(((now - begun) * 10)) -$why" > "$dir/done.new"
  mv "$dir/done.new" "$dir/done"
}
await() { # Claims a command that never started; waits for one that did.
  mkdir -p "$dir"
  if claim; then echo N; exit 0; fi
  clock
  begun=$now
  while ! [ -e "$dir/done" ]; do
    clock
    if [ $now -ge $((begun + slice)) ]; then echo R; exit 0; fi
    sleep 0.04
  done
  report
}
