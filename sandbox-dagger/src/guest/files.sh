# What the file operations share. They always exit 0 and say on stdout what happened; the answer of
# a failed one is thrown away together with the files as it left them.
exec 2>/dev/null
fail() { echo "frame $nonce"; echo "no $1"; printf %s "$path" | base64; echo .; echo "end $nonce"; exit 0; }
begin() { echo "frame $nonce"; echo ok; }
finish() { echo "end $nonce"; exit 0; }
# Whether the links on the way of $1 lead in a circle.
loops() {
    case $(LC_ALL=C ls -d -- "$1/" 2>&1) in *'levels of symbolic links'* | *'ymbolic link loop'*) ;; *) return 1 ;; esac
}
# Why nothing is at $1.
absent() {
    above=$1
    while [ -n "$above" ]; do
        if [ -d "$above" ]; then break; fi
        if [ -L "$above" ] && loops "$above"; then fail loop; fi
        if [ -e "$above" ]; then fail not-a-directory; fi
        above=${above%/*}
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
    [ -e "$path" ] || absent "$path"
    if [ -d "$path" ]; then fail is-a-directory; fi
    if [ ! -f "$path" ]; then fail not-a-regular-file; fi
    if [ ! -r "$path" ]; then fail denied; fi
    size=$(stat -L -c %s -- "$path")
    if [ "$size" -gt "$limit" ]; then fail limit; fi
    begin; base64 <"$path"; echo .; finish
}
describe() {
    # $@: arguments for find that choose the entries, in the same order each time.
    find $follow "$@" -print0 | base64; echo .
    find $follow "$@" -exec stat $follow -c '%f %s %Y %u %g' -- {} +; echo .
    find $follow "$@" -type l -exec sh -c 'for l; do readlink -n -- "$l"; printf "\0"; done' sh {} + | base64; echo .
}
op_metadata() {
    there "$path" || absent "$path"
    # A link that leads nowhere, or in a circle.
    if [ -n "$follow" ] && [ ! -e "$path" ]; then fail not-found; fi
    begin; describe "$path" -prune; finish
}
op_list() {
    follow=
    there "$path" || absent "$path"
    if [ ! -d "$path" ]; then
        loops "$path" && fail loop
        fail not-a-directory
    fi
    if [ ! -r "$path" ] || [ ! -x "$path" ]; then fail denied; fi
    cd -- "$path" || fail denied
    if [ "$limit" -gt 0 ] && [ "$(find . -mindepth 1 $depth -print | head -n "$((limit + 1))" | wc -l)" -gt "$((limit * 2))" ]; then fail limit; fi
    begin; describe . -mindepth 1 $depth; finish
}
op_remove() {
    there "$path" || absent "$path"
    if [ -d "$path" ] && [ ! -L "$path" ]; then
        if [ "$recursive" = yes ]; then said=$(rm -rf -- "$path" 2>&1) || because "$said"
        else
            if [ -n "$(find "$path" -mindepth 1 -maxdepth 1 -print | head -n 1)" ]; then fail not-empty; fi
            said=$(rmdir -- "$path" 2>&1) || because "$said"
        fi
    else said=$(rm -f -- "$path" 2>&1) || because "$said"; fi
    begin; finish
}
op_create_dir() {
    if there "$path"; then
        if [ "$parents" = yes ] && [ -d "$path" ]; then begin; finish; fi
        fail exists
    fi
    parent=${path%/*}
    if [ "$parents" = yes ]; then
        said=$(mkdir -p -- "${parent:-/}" 2>&1) || case $said in *xists*) fail not-a-directory ;; *) because "$said" ;; esac
    elif [ -n "$parent" ] && [ ! -d "$parent" ]; then there "$parent" && fail not-a-directory; absent "$path"; fi
    said=$(mkdir -- "$path" 2>&1) || because "$said"
    chmod "$mode" -- "$path" || fail denied
    begin; finish
}
op_rename() {
    there "$path" || absent "$path"
    if [ "$path" = "$to" ]; then begin; finish; fi
    case $to in "$path"/*) if [ -d "$path" ] && [ ! -L "$path" ]; then fail into-itself; fi ;; esac
    parent=${to%/*}
    if [ -n "$parent" ] && [ ! -d "$parent" ]; then path=$to; there "$parent" && fail not-a-directory; absent "$to"; fi
    if there "$to"; then
        from=$path path=$to
        if [ "$replace" != yes ]; then fail exists; fi
        if [ -d "$to" ] && [ ! -L "$to" ]; then
            if [ ! -d "$from" ] || [ -L "$from" ]; then fail is-a-directory; fi
            said=$(rmdir -- "$to" 2>&1) || fail not-empty
        else
            if [ -d "$from" ] && [ ! -L "$from" ]; then fail not-a-directory; fi
            said=$(rm -f -- "$to" 2>&1) || because "$said"
        fi
        path=$from
    fi
    said=$(mv -f -- "$path" "$to" 2>&1) || because "$said"
    begin; finish
}
op_check_dir() {
    [ -e "$path" ] || absent "$path"
    if [ ! -d "$path" ]; then fail not-a-directory; fi
    begin; finish
}
parents_of() {
    parent=${path%/*}
    if [ -n "$parent" ] && [ ! -d "$parent" ]; then
        said=$(mkdir -p -- "$parent" 2>&1) || case $said in *xists*) fail not-a-directory ;; *) because "$said" ;; esac
    fi
}
# A batch: 'each' calls what it is given with PATH MODE HOW for every file of the archive.
op_batch() {
    kept= lost=
    each check
    modes=
    # Files that are replaced keep their modes unless others are asked for.
    case $kept in *1*) modes=$(each old | xargs -0 stat -c %a --) ;; esac
    if ! said=$(tar -xpf "$stage/data.tar" -C / 2>&1); then
        path=
        each lost
        because "$said"
    fi
    case $kept in *1*) each remode ;; esac
    begin; finish
}
check() {
    path=$1 keep=0
    if there "$path"; then
        if [ -d "$path" ] && [ ! -L "$path" ]; then fail is-a-directory; fi
        if [ "$3" = new ]; then fail exists; fi
        if [ ! -f "$path" ] && [ ! -L "$path" ]; then fail not-a-regular-file; fi
        if [ "$2" = - ] && [ -f "$path" ] && [ ! -L "$path" ]; then keep=1; fi
    else
        parent=${path%/*}
        while [ -n "$parent" ] && [ ! -d "$parent" ]; do
            if there "$parent"; then
                loops "$parent" && fail loop
                fail not-a-directory
            fi
            parent=${parent%/*}
        done
    fi
    kept=$kept$keep
}
# Whether the next file keeps its mode.
keeps() {
    keep=${kept%"${kept#?}"} kept=${kept#?}
    [ "$keep" = 1 ]
}
old() { if keeps; then printf '%s\0' "$1"; fi; }
remode() {
    if keeps; then
        own_mode=${modes%%[!0-7]*} modes=${modes#*[!0-7]}
        if [ "$own_mode" != 644 ]; then path=$1; chmod "$own_mode" -- "$path" || fail denied; fi
    fi
}
# The first file that is not there, to have a name for what went wrong.
lost() { if [ -z "$lost" ] && [ ! -f "$1" ]; then path=$1 lost=1; fi; }
