# As spawn.sh, for a command with a terminal: that of this shell, which leads its session and stays
# apart from what keys send. Set before: raw, whether the terminal changes nothing. The first line is S,
# or E with an error's name; behind the command's last byte comes its end.
apart=
bound() { :; }
written() { :; }
plumb() {
  mkfifo "$dir/up" || no NOSPACE
  [ -z "$raw" ] || stty raw -echo <&5
  echo S
  exec > /dev/null 2>&1
}
drain() { :; }
report() { cat "$dir/done"; }
finish() {
  ended 0 0 0 0
  kill -9 "$holder"
  printf '\0%s %s %s\n' "$trailer" "${code:-9}" "-$why" >&5
}
carry() { # As launch.
  trap '' HUP INT QUIT TSTP TTIN TTOU
  exec 5<&0 < /dev/null
  five=5
  launch "$@"
  supervise ''
}
