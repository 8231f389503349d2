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
length() { # length: how much the command had written to the file when it ended.
  tries=0
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
finish() {
  end=end-$nonce
  printf %s "$end" >&8
  printf %s "$end" >&9
  length out
  out_length=$length
  length err
  err_length=$length
  drain
  kill -9 "$out_reader" "$err_reader" "$holder" 2> /dev/null
  [ "$out_length" -le "$out_limit" ] && out_kept=$out_length || out_kept=$out_limit
  [ "$err_length" -le "$err_limit" ] && err_kept=$err_length || err_kept=$err_limit
  truncate -s "$out_kept" "$dir/out"
  truncate -s "$err_kept" "$dir/err"
  ended "$out_length" "$err_length" "$out_kept" "$err_kept"
}
report() {
  read -r line < "$dir/done"
  echo "$line"
  set -- $line
  if [ $(($5 + $6)) -le "$inline" ]; then base64 -w0 "$dir/out"; echo; base64 -w0 "$dir/err"; echo; else echo F; fi
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
