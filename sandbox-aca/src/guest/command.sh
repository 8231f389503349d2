# One command: started at most once, watched, killed with all it started.
# Set before: d n T path (see launch.rs).
now() { read -r u _ < /proc/uptime; u=${u%.*}${u#*.}; while case $u in 0?*) ;; *) false ;; esac; do u=${u#0}; done; }
look() { # The program, as execvp would find it.
  case $1 in
  */*) f=$1 ;;
  *)
    f=
    o=$IFS
    IFS=:
    set -f
    for x in $path; do
      if [ -f "${x:-.}/$1" ] && [ -x "${x:-.}/$1" ]; then f=${x:-.}/$1; break; fi
    done
    set +f
    IFS=$o
    [ "$f" ] || no NOCMD
    ;;
  esac
  [ -e "$f" ] || no NOCMD
  if [ -d "$f" ] || ! [ -x "$f" ]; then no NOEXEC; fi
  if [ -r "$f" ]; then
    case $(od -An -N2 -tx1 "$f") in
    *7f*45*) ;;
    *23*21*)
      IFS= read -r l < "$f"
      l=${l#??}
      set -f
      set -- $l
      set +f
      [ -x "$1" ] || no NOCMD
      ;;
    *) no NOEXEC ;;
    esac
  fi
}
state() { # s: state of the main process, c: its wait status.
  l=
  while IFS= read -r x; do l="$l$x "; done 2> /dev/null < "/proc/$p/stat" || :
  s=
  [ "$l" ] || return 0
  set -f
  set -- ${l##*) }
  set +f
  s=$1
  c=${50}
}
kill_all() {
  kill -9 "$p" 2> /dev/null
  i=0
  while [ $i -lt 50 ]; do
    k=$(grep -lsaF "SANDBOX_RUN=$n" /proc/[0-9]*/environ)
    [ "$k" ] || break
    for x in $k; do
      x=${x#/proc/}
      kill -9 "${x%/environ}" 2> /dev/null
    done
    i=$((i + 1))
  done
}
launch() { # launch INPUT CWD PROGRAM, the arguments of env: gets everything ready and starts it.
  mkdir -p "$d"
  mkdir "$d/claim" 2> /dev/null || no CLAIMED
  if ! cd "$2" 2> /dev/null; then
    [ -d "$2" ] && no PERM
    [ -e "$2" ] && no NOTDIR
    climb "$2"
  fi
  in=$1
  look "$3"
  shift 3
  mkfifo "$d/op" "$d/ep" || no NOSPACE
  streams
  exec 8> "$d/op" 9> "$d/ep"
  now
  b=$u
  # The program waits until its parent is `sleep`, which reaps nobody: a shell might, and then how
  # the program ended could not be read from /proc any more.
  setsid sh -c 'd=$1 i=$2; shift 2
    (z=0
      while [ $z -lt 20000 ] && read -r x < /proc/$$/comm && [ "$x" != sleep ]; do z=$((z + 1)); done
      exec < "$i" > "$d/op" 2> "$d/ep"
      exec env "$@") &
    echo $! > "$d/pid"; exec sleep 2147483647' \
    sh "$d" "$in" "$@" < /dev/null > /dev/null 2>&1 5<&- 8>&- 9>&- &
  h=$!
  trap '' PIPE
  until read -r p < "$d/pid"; do sleep 0.005; done 2> /dev/null
}
supervise() { # Until it ended, or for a time.
  z=0
  while :; do
    state
    case $s in Z | X | '') break ;; esac
    [ -e "$d/cancel" ] && kill_all
    now
    if [ "$T" ] && [ $u -ge $((b + T)) ] && ! [ -e "$d/timeout" ]; then : > "$d/timeout"; kill_all; fi
    [ -z "$1" ] || [ $u -lt $((b + $1)) ] || return 1
    z=$((z + 1))
    if [ $z -lt 12 ]; then sleep 0.01; else bound; sleep 0.04; fi
  done
  [ -e "$d/timeout" ] || [ -e "$d/cancel" ] && kill_all
  finish
}
ended() { # ended BYTES BYTES KEPT KEPT: writes down how.
  now
  w=
  [ -e "$d/cancel" ] && w=c
  [ -e "$d/timeout" ] && w=${w}t
  echo "D ${c:-9} $* $(((u - b) * 10)) -$w" > "$d/done.t"
  mv "$d/done.t" "$d/done"
}
await() { # Claims a command that never started; waits for one that did.
  mkdir -p "$d"
  if mkdir "$d/claim" 2> /dev/null; then echo N; exit 0; fi
  now
  b=$u
  while ! [ -e "$d/done" ]; do
    now
    if [ $u -ge $((b + W)) ]; then echo R; exit 0; fi
    sleep 0.04
  done
  report
}
