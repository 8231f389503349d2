if [ "$marker" ] && ! [ -e "$marker" ]; then printf '%s{"lost":true}%s\n' "$nonce" "$nonce"; exit 0; fi
mkdir "$dir" || exit 0
(cd / && exec /bin/sh -c "$script") < /dev/null > "$dir/t" 2> /dev/null
status=$?
length=$(stat -c %s "$dir/t")
output=null sum=
if [ "$length" -le "$inline" ]; then output='"'$(base64 -w0 "$dir/t")'"'; rm -rf "$dir"; else sum=$(sha256sum < "$dir/t"); fi
printf '%s{"rc":%d,"len":%d,"sha":"%s","out":%s}%s\n' "$nonce" "$status" "$length" "${sum%% *}" "$output" "$nonce"
