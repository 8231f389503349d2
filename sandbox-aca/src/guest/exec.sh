# A command whose output is kept in files, byte for byte, and told when it has ended.
# Set before: out_limit, err_limit, inline, slice (see exec.rs). What comes back is one letter; E is an
# error, with its name.
bound() { # What is beyond the limit and the tail takes no room on the disk.
  set -- $(stat -c %s "$dir/out" "$dir/err")
  excess=$(($1 - out_limit - 262144))
  [ $excess -le 67108864 ] || fallocate -p -o "$out_limit" -l $excess "$dir/out" 2> /dev/null
  excess=$(($2 - err_limit - 262144))
  [ $excess -le 67108864 ] || fallocate -p -o "$err_limit" -l $excess "$dir/err" 2> /dev/null
}
written() { stat -c %s "$dir/out" "$dir/err"; }
length() { # length FILE READER: how much the command had written to it when it ended.
  tries=0
  if over "$2"; then length=$(stat -c %s "$dir/$1"); return 0; fi
  while :; do
    length=$(($(stat -c %s "$dir/$1") - ${#end}))
    # A program in the background may write on: the end is looked for where it was.
    if [ $length -ge 0 ] && [ "$(tail -c +$((length + 1)) "$dir/$1" | head -c ${#end} | tr -d '\0')" = "$end" ]; then return 0; fi
    length=$(grep -obaF -e "$end" "$dir/$1" | head -n 1)
    length=${length%%:*}
    [ -z "$length" ] || return 0
    tries=$((tries + 1))
    if [ $tries -gt 500 ]; then length=$(stat -c %s "$dir/$1"); return 0; fi
    sleep 0.01
  done
}
over() { # Whether a process has ended.
  read -r _ _ how _ < "/proc/$1/stat" || return 0
  case $how in Z | X) return 0 ;; esac
  return 1
} 2> /dev/null
finish() {
  if [ -z "$survivors" ]; then
    # Nobody writes any more, so that those who read come to the end.
    exec 8>&- 9>&-
    tries=0
    while [ $tries -lt 20 ]; do
      if over "$out_reader" && over "$err_reader"; then
        kill -9 "$holder" 2> /dev/null
        set -- $(stat -c %s "$dir/out" "$dir/err")
        keep "$1" "$2" ''
        return
      fi
      [ $tries -lt 5 ] || sleep 0.005
      tries=$((tries + 1))
    done
    # But for one that has lost its mark.
    exec 8<> "$dir/out.pipe" 9<> "$dir/err.pipe"
  fi
  end=end-$nonce
  printf %s "$end" >&8
  printf %s "$end" >&9
  length out "$out_reader"
  out_length=$length
  length err "$err_reader"
  err_length=$length
  drain
  kill -9 "$out_reader" "$err_reader" "$holder" 2> /dev/null
  keep "$out_length" "$err_length" more
}
keep() { # keep BYTES BYTES MORE: cuts the files to the limits, and to the bytes if there is more.
  out_kept=$1 err_kept=$2
  [ "$1" -le "$out_limit" ] || out_kept=$out_limit
  [ "$2" -le "$err_limit" ] || err_kept=$err_limit
  [ "$out_kept$3" = "$1" ] || truncate -s "$out_kept" "$dir/out"
  [ "$err_kept$3" = "$2" ] || truncate -s "$err_kept" "$dir/err"
  ended "$1" "$2" "$out_kept" "$err_kept"
}
base() { [ "$1" -eq 0 ] || base64 -w0 "$2"; echo; }
report() {
  read -r line < "$dir/done"
  echo "$line"
  set -- $line
  if [ $(($5 + $6)) -le "$inline" ]; then base "$5" "$dir/out"; base "$6" "$dir/err"; else echo F; fi
}
streams() {
  cat < "$dir/out.pipe" > "$dir/out" 2> /dev/null &
  out_reader=$!
  cat < "$dir/err.pipe" > "$dir/err" 2> /dev/null &
  err_reader=$!
}
start() { # As launch.
  launch "$@"
  if supervise "$slice"; then
    report
  else
    (supervise '') < /dev/null > /dev/null 2>&1 &
    echo R
  fi
}
