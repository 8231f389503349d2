# A command whose streams are carried while it runs, over this shell's own. Set before: m, what ends a
# stream. The first line of stdout is S, or E with an error's name; behind it come the command's bytes.
# Our own input is control: `Ni COUNT` and so many bytes of input, `Ne` for its end, `Nb` when all is
# read, where N is the command's nonce.
bound() { :; }
streams() {
  echo S
  cat < "$d/op" 2> /dev/null &
  c1=$!
  cat < "$d/ep" >&2 &
  c2=$!
  # Held by them alone from now on.
  exec > /dev/null 2>&1
}
control() {
  [ -p "$in" ] && exec > "$in"
  while read -r x y; do
    case $x in
    "$n"i) head -c "$y" || exec > /dev/null ;;
    "$n"e) exec > /dev/null ;;
    "$n"b) kill -9 "$c1" "$c2"; return ;;
    esac
  done
  # Whoever started the command has gone.
  : > "$d/cancel"
}
finish() {
  ended 0 0 0 0
  kill -9 "$h"
  # A full pipe that nobody reads holds these up, but not what was written down.
  printf '\0%s %s %s\n' "$m" "${c:-9}" "-$w" >&8 &
  printf '\0%s\n' "$m" >&9 &
  exec 8>&- 9>&-
  # They end with the last that holds the pipe, or when all is read.
  wait "$c1" "$c2"
}
report() { cat "$d/done"; }
carry() { # As launch; the input may be `pipe`.
  exec 5<&0 < /dev/null
  if [ "$1" = pipe ]; then
    mkdir -p "$d"
    mkfifo "$d/ip" || no NOSPACE
    shift
    set -- "$d/ip" "$@"
  fi
  launch "$@"
  (trap - PIPE; exec 8>&- 9>&-; control) <&5 &
  g=$!
  exec 5<&-
  supervise ''
  kill -9 "$g"
}
