# What the file operations share. They always exit 0 and say on stdout what happened; the answer of
# a failed one is thrown away together with the files as it left them.
exec 2>/dev/null
fail() { echo "frame $nonce"; echo "no $1"; printf %s "$p" | base64; echo .; echo "end $nonce"; exit 0; }
begin() { echo "frame $nonce"; echo ok; }
finish() { echo "end $nonce"; exit 0; }
# Why nothing is at $1.
absent() {
    q=$1
    while [ -n "$q" ]; do
        if [ -d "$q" ]; then break; fi
        if [ -e "$q" ]; then fail not-a-directory; fi
        q=${q%/*}
    done
    fail not-found
}
there() { [ -e "$1" ] || [ -L "$1" ]; }
# Why a program that changes something said $1.
because() {
    case $1 in
    *"ead-only"*) fail read-only ;;
    *"o space left"*) fail storage-full ;;
    *"name too long"*) fail name-too-long ;;
    *"ot a directory"*) fail not-a-directory ;;
    *"esource busy"*) fail busy ;;
    *) fail denied ;;
    esac
}
op_read() {
    [ -e "$p" ] || absent "$p"
    if [ -d "$p" ]; then fail is-a-directory; fi
    if [ ! -f "$p" ]; then fail not-a-regular-file; fi
    if [ ! -r "$p" ]; then fail denied; fi
    size=$(stat -L -c %s -- "$p")
    if [ "$size" -gt "$limit" ]; then fail limit; fi
    begin; base64 <"$p"; echo .; finish
}
describe() {
    # $@: arguments for find that choose the entries, in the same order each time.
    find $follow "$@" -print0 | base64; echo .
    find $follow "$@" -exec stat $follow -c '%f %s %Y %u %g' -- {} +; echo .
    find $follow "$@" -type l -exec sh -c 'for l; do readlink -n -- "$l"; printf "\0"; done' sh {} + | base64; echo .
}
op_metadata() {
    there "$p" || absent "$p"
    # A link that leads nowhere, or in a circle.
    if [ -n "$follow" ] && [ ! -e "$p" ]; then fail not-found; fi
    begin; describe "$p" -prune; finish
}
op_list() {
    follow=
    there "$p" || absent "$p"
    if [ ! -d "$p" ]; then fail not-a-directory; fi
    if [ ! -r "$p" ] || [ ! -x "$p" ]; then fail denied; fi
    cd -- "$p" || fail denied
    if [ "$limit" -gt 0 ] && [ "$(find . -mindepth 1 $depth -print | head -n "$((limit + 1))" | wc -l)" -gt "$((limit * 2))" ]; then fail limit; fi
    begin; describe . -mindepth 1 $depth; finish
}
op_remove() {
    there "$p" || absent "$p"
    if [ -d "$p" ] && [ ! -L "$p" ]; then
        if [ "$recursive" = yes ]; then e=$(rm -rf -- "$p" 2>&1) || because "$e"
        else
            if [ -n "$(find "$p" -mindepth 1 -maxdepth 1 -print | head -n 1)" ]; then fail not-empty; fi
            e=$(rmdir -- "$p" 2>&1) || because "$e"
        fi
    else e=$(rm -f -- "$p" 2>&1) || because "$e"; fi
    begin; finish
}
op_create_dir() {
    if there "$p"; then
        if [ "$parents" = yes ] && [ -d "$p" ]; then begin; finish; fi
        fail exists
    fi
    up=${p%/*}
    if [ "$parents" = yes ]; then
        e=$(mkdir -p -- "${up:-/}" 2>&1) || case $e in *xists*) fail not-a-directory ;; *) because "$e" ;; esac
    elif [ -n "$up" ] && [ ! -d "$up" ]; then there "$up" && fail not-a-directory; absent "$p"; fi
    e=$(mkdir -- "$p" 2>&1) || because "$e"
    chmod "$mode" -- "$p" || fail denied
    begin; finish
}
op_rename() {
    there "$p" || absent "$p"
    if [ "$p" = "$to" ]; then begin; finish; fi
    case $to in "$p"/*) if [ -d "$p" ] && [ ! -L "$p" ]; then fail into-itself; fi ;; esac
    up=${to%/*}
    if [ -n "$up" ] && [ ! -d "$up" ]; then p=$to; there "$up" && fail not-a-directory; absent "$to"; fi
    if there "$to"; then
        from=$p p=$to
        if [ "$replace" != yes ]; then fail exists; fi
        if [ -d "$to" ] && [ ! -L "$to" ]; then
            if [ ! -d "$from" ] || [ -L "$from" ]; then fail is-a-directory; fi
            e=$(rmdir -- "$to" 2>&1) || fail not-empty
        else
            if [ -d "$from" ] && [ ! -L "$from" ]; then fail not-a-directory; fi
            e=$(rm -f -- "$to" 2>&1) || because "$e"
        fi
        p=$from
    fi
    e=$(mv -f -- "$p" "$to" 2>&1) || because "$e"
    begin; finish
}
op_check_dir() {
    [ -e "$p" ] || absent "$p"
    if [ ! -d "$p" ]; then fail not-a-directory; fi
    begin; finish
}
parents_of() {
    up=${p%/*}
    if [ -n "$up" ] && [ ! -d "$up" ]; then
        e=$(mkdir -p -- "$up" 2>&1) || case $e in *xists*) fail not-a-directory ;; *) because "$e" ;; esac
    fi
}
# A batch: 'each' calls what it is given with PATH MODE HOW for every file of the archive.
op_batch() {
    kept= lost=
    each check
    modes=
    # Files that are replaced keep their modes unless others are asked for.
    case $kept in *1*) modes=$(each old | xargs -0 stat -c %a --) ;; esac
    if ! e=$(tar -xpf "$stage/data.tar" -C / 2>&1); then
        p=
        each lost
        because "$e"
    fi
    case $kept in *1*) each remode ;; esac
    begin; finish
}
check() {
    p=$1 f=0
    if there "$p"; then
        if [ -d "$p" ] && [ ! -L "$p" ]; then fail is-a-directory; fi
        if [ "$3" = new ]; then fail exists; fi
        if [ "$2" = - ] && [ -f "$p" ] && [ ! -L "$p" ]; then f=1; fi
    else
        up=${p%/*}
        while [ -n "$up" ] && [ ! -d "$up" ]; do
            if there "$up"; then fail not-a-directory; fi
            up=${up%/*}
        done
    fi
    kept=$kept$f
}
# Whether the next file keeps its mode.
keeps() {
    f=${kept%"${kept#?}"} kept=${kept#?}
    [ "$f" = 1 ]
}
old() { if keeps; then printf '%s\0' "$1"; fi; }
remode() {
    if keeps; then
        m=${modes%%[!0-7]*} modes=${modes#*[!0-7]}
        if [ "$m" != 644 ]; then p=$1; chmod "$m" -- "$p" || fail denied; fi
    fi
}
# The first file that is not there, to have a name for what went wrong.
lost() { if [ -z "$lost" ] && [ ! -f "$1" ]; then p=$1 lost=1; fi; }
