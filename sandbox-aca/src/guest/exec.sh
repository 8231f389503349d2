# A command whose output is kept in files, byte for byte, and told when it has ended.
# Set before: L1 L2 I W (see exec.rs). What comes back is one letter; E is an error, with its name.
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
  ended "$t1" "$t2" "$k1" "$k2"
}
report() {
  read -r l < "$d/done"
  echo "$l"
  set -- $l
  if [ $(($5 + $6)) -le "$I" ]; then base64 -w0 "$d/o"; echo; base64 -w0 "$d/e"; echo; else echo F; fi
}
streams() {
  cat < "$d/op" > "$d/o" 2> /dev/null &
  c1=$!
  cat < "$d/ep" > "$d/e" 2> /dev/null &
  c2=$!
}
start() { # As launch.
  launch "$@"
  if supervise "$W"; then
    report
  else
    (supervise '') < /dev/null > /dev/null 2>&1 &
    echo R
  fi
}
