# One command in the guest: started at most once, watched, killed with all it started, its output
# kept byte for byte. Set before: d n T L1 L2 I W path (see exec.rs).
# States that are asked for come back as one letter; E is an error, with its name.
no() { echo "E $1"; exit 0; }
now() { read -r u _ < /proc/uptime; u=${u%.*}${u#*.}; while case $u in 0?*) ;; *) false ;; esac; do u=${u#0}; done; }
climb() { # Why the path is not there.
  q=$1
  while [ "$q" ] && ! [ -e "$q" ] && ! [ -L "$q" ]; do q=${q%/*}; done
  if [ -z "$q" ] || [ -d "$q" ]; then no NOENT; else no NOTDIR; fi
}
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
bound() { # What is beyond the limit and the tail takes no room on the disk.
  set -- $(stat -c %s "$d/o" "$d/e")
  r=$(($1 - L1 - 262144))
  [ $r -le 67108864 ] || fallocate -p -o "$L1" -l $r "$d/o" 2> /dev/null
  r=$(($2 - L2 - 262144))
  [ $r -le 67108864 ] || fallocate -p -o "$L2" -l $r "$d/e" 2> /dev/null
}
length() { # t: how much the command had written to the file when it ended.
  i=0
  while :; do
    if [ "$(tail -c ${#m} "$d/$1" 2> /dev/null | tr -d '\0')" = "$m" ]; then
      t=$(stat -c %s "$d/$1")
      t=$((t - ${#m}))
      return 0
    fi
    t=$(grep -obaF -e "$m" "$d/$1" | head -n 1)
    t=${t%%:*}
    [ -z "$t" ] || return 0
    i=$((i + 1))
    if [ $i -gt 500 ]; then t=$(stat -c %s "$d/$1"); return 0; fi
    sleep 0.01
  done
}
finish() {
  m=end-$n
  printf %s "$m" >&8
  printf %s "$m" >&9
  length o
  t1=$t
  length e
  t2=$t
  kill -9 "$c1" "$c2" "$h" 2> /dev/null
  [ "$t1" -le "$L1" ] && k1=$t1 || k1=$L1
  [ "$t2" -le "$L2" ] && k2=$t2 || k2=$L2
  truncate -s "$k1" "$d/o"
  truncate -s "$k2" "$d/e"
  now
  w=
  [ -e "$d/cancel" ] && w=c
  [ -e "$d/timeout" ] && w=${w}t
  echo "D ${c:-9} $t1 $t2 $k1 $k2 $(((u - b) * 10)) -$w" > "$d/done.t"
  mv "$d/done.t" "$d/done"
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
report() {
  read -r l < "$d/done"
  echo "$l"
  set -- $l
  if [ $(($5 + $6)) -le "$I" ]; then base64 -w0 "$d/o"; echo; base64 -w0 "$d/e"; echo; else echo F; fi
}
start() { # start INPUT CWD PROGRAM, the arguments of env in "$a".
  in=$1 cwd=$2
  mkdir -p "$d"
  mkdir "$d/claim" 2> /dev/null || no CLAIMED
  if ! cd "$cwd" 2> /dev/null; then
    [ -d "$cwd" ] && no PERM
    [ -e "$cwd" ] && no NOTDIR
    climb "$cwd"
  fi
  look "$3"
  shift 3
  mkfifo "$d/op" "$d/ep" || no NOSPACE
  cat < "$d/op" > "$d/o" 2> /dev/null &
  c1=$!
  cat < "$d/ep" > "$d/e" 2> /dev/null &
  c2=$!
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
    sh "$d" "$in" "$@" < /dev/null > /dev/null 2>&1 8>&- 9>&- &
  h=$!
  trap '' PIPE
  until read -r p < "$d/pid"; do sleep 0.005; done 2> /dev/null
  if supervise "$W"; then
    report
  else
    (supervise '') < /dev/null > /dev/null 2>&1 &
    echo R
  fi
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
