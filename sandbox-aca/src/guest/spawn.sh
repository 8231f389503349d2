# A command whose streams are carried while it runs, over this shell's own. Set before: trailer, what
# begins stderr and ends both. The first line of stdout is S, or E with an error's name; behind it come the command's
# bytes. Our own input is control: `Ni COUNT` and so many bytes of input, `Ne` for its end, `Nb` when
# all is read, where N is the command's nonce.
bound() { :; }
written() { cat "/proc/$out_reader/io" "/proc/$err_reader/io" 2> /dev/null; }
streams() {
  # Before this comes what this shell itself complains about; behind it, the command's bytes.
  printf '\0%s\n' "$trailer" >&2
  echo S
  cat < "$dir/out.pipe" 2> /dev/null &
  out_reader=$!
  cat < "$dir/err.pipe" >&2 &
  err_reader=$!
  # Held by them alone from now on.
  exec > /dev/null 2>&1
}
control() {
  [ -p "$input" ] && exec > "$input"
  while read -r word count; do
    case $word in
    "$nonce"i) head -c "$count" || exec > /dev/null ;;
    "$nonce"e) exec > /dev/null ;;
    "$nonce"b) drain; kill -9 "$out_reader" "$err_reader"; return ;;
    esac
  done
  # The one that started the command has gone.
  : > "$dir/cancel"
}
finish() {
  ended 0 0 0 0
  kill -9 "$holder"
  # A full pipe that nothing reads holds these up, but not what was written down.
  printf '\0%s %s %s\n' "$trailer" "${code:-9}" "-$why" >&8 &
  printf '\0%s\n' "$trailer" >&9 &
  exec 8>&- 9>&-
  # They end with the last that holds the pipe, or when all is read.
  wait "$out_reader" "$err_reader"
}
report() { cat "$dir/done"; }
carry() { # As launch; the input may be `pipe`.
  exec 5<&0 < /dev/null
  if [ "$1" = pipe ]; then
    mkdir -p "$dir"
    mkfifo "$dir/in.pipe" || no NOSPACE
    shift
    set -- "$dir/in.pipe" "$@"
  fi
  launch "$@"
  (trap - PIPE; exec 8>&- 9>&-; control) <&5 &
  controller=$!
  exec 5<&-
  supervise ''
  kill -9 "$controller"
}
