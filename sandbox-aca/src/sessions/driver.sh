if [ "$m" ] && ! [ -e "$m" ]; then printf '%s{"lost":true}%s\n' "$n" "$n"; exit 0; fi
mkdir "$d" && printf %s "$s" | base64 -d > "$d/s" || exit 0
(cd / && exec /bin/sh "$d/s") < /dev/null > "$d/t" 2> /dev/null
r=$?
l=$(stat -c %s "$d/t")
h=$(sha256sum < "$d/t")
o=null
if [ "$l" -le "$i" ]; then o='"'$(base64 -w0 "$d/t")'"'; rm -rf "$d"; fi
printf '%s{"rc":%d,"len":%d,"sha":"%s","out":%s}%s\n' "$n" "$r" "$l" "${h%% *}" "$o" "$n"
