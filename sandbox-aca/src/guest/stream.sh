# As spawn.sh, where this shell's own input is the command's, and ends when that does. What the client
# has to say beside comes as a file: `read`, when it has all that the command wrote.
hear() { # The first line says that input arrives at all; what follows is the command's.
  read -r hello && : > "$dir/hello" && exec cat > "$dir/in.pipe"
}
carry() { # As launch; the input may be `pipe`.
  exec 5<&0 < /dev/null
  controller=
  if [ "$1" = pipe ]; then
    mkdir -p "$dir"
    mkfifo "$dir/in.pipe" || no NOSPACE
    shift
    set -- "$dir/in.pipe" "$@"
    hear <&5 &
    controller=$!
    tries=0
    until [ -e "$dir/hello" ]; do
      if [ $tries -ge 250 ]; then kill -9 "$controller"; no NOINPUT; fi
      tries=$((tries + 1))
      sleep 0.02
    done
  fi
  exec 5<&-
  launch "$@"
  supervise ''
  [ -z "$controller" ] || kill -9 "$controller" 2> /dev/null
}
finish() {
  ended 0 0 0 0
  kill -9 "$holder"
  more=
  survivors && more=m
  printf '\0%s %s %s\n' "$trailer" "${code:-9}" "-$why$more" >&8 &
  printf '\0%s\n' "$trailer" >&9 &
  exec 8>&- 9>&-
  # They end with the last that holds the pipe, or when all is read.
  if [ "$more" ]; then
    while kill -0 "$out_reader" 2> /dev/null || kill -0 "$err_reader" 2> /dev/null; do
      if [ -e "$dir/read" ]; then
        drain
        kill -9 "$out_reader" "$err_reader" 2> /dev/null
        return
      fi
      sleep 0.1
    done
  fi
  wait "$out_reader" "$err_reader"
}
