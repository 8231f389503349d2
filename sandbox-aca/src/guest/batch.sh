# Puts a batch in place: all of it or nothing, with a few processes for each directory.
# Set before: stage, the staging directory, and nonce, a fresh name. What is put into the directory of
# number K stands in stage/K under its own name.
made= puts= far=
into() { # into K DIRECTORY FILE: what follows goes there; FILE is its first, for errors.
  number=$1 directory=$2
  eval "directory_$number=\$2 first_$number=$3"
  # Names of files that: are new; are replaced; must be new; keep the mode of what they replace.
  exec 3> "$stage/new.$number" 4> "$stage/replaced.$number" 5> "$stage/must_be_new.$number" 6> "$stage/keep_mode.$number"
  above=$directory
  while [ "$above" ] && ! there "$above"; do above=${above%/*}; done
  [ -z "$above" ] || [ -d "$above" ] || not_dir "$above" "$3"
}
file() { # file NUMBER NAME KEEP_MODE CREATE_NEW
  path=$directory/$2
  if there "$path"; then
    [ -z "$4" ] || no EXIST "$1"
    if ! [ -L "$path" ]; then
      [ -d "$path" ] && no ISDIR "$1"
      [ -f "$path" ] || no NOTREG "$1"
      [ -w "$path" ] || no PERM "$1"
      [ -z "$3" ] || printf '%s\0' "./$2" >&6
    fi
    printf '%s\0' "./$2" >&4
  elif [ "$4" ]; then
    printf '%s\0' "./$2" >&5
  else
    printf '%s\0' "./$2" >&3
  fi
}
all() { # all LIST COMMAND…: with the list's names behind it.
  list=$stage/$1
  shift
  [ -s "$list" ] || return 0
  LC_ALL=C xargs -0 -a "$list" "$@" 2> "$stage/err"
}
swept() {
  cd /
  for number in $far; do
    eval "directory=\$directory_$number"
    rm -rf -- "$directory/.sandbox-$nonce"
  done
}
back() { # Takes back what was done; then says why.
  for number in $puts; do
    eval "directory=\$directory_$number source=\$source_$number"
    cd "$directory/" || continue
    all "new.$number" sh -c 'for f; do [ -e "$0/$f" ] || [ -L "$0/$f" ] || rm -f -- "$f"; done' "$source/new"
    all "must_be_new.$number" sh -c 'for f; do ! [ "$0/$f" -ef "$f" ] || rm -f -- "$f"; done' "$source/new"
    all "replaced.$number" sh -c 'for f; do if [ -e "$0/$f" ] || [ -L "$0/$f" ]; then mv -fT -- "$0/$f" "$f"; fi; done' "$source/old"
  done
  cd /
  for number in $made; do
    eval "topmost=\$topmost_$number"
    find "$topmost" -type d -empty -delete 2> /dev/null
  done
  swept
  denied "$1" "$first"
}
put() { # put K
  number=$1
  eval "directory=\$directory_$number first=\$first_$number"
  source=$stage/$number
  if [ "$directory" ] && ! [ -d "$directory" ]; then
    topmost=$directory
    while above=${topmost%/*}; [ "$above" ] && ! there "$above"; do topmost=$above; done
    eval "topmost_$number=\$topmost"
    made="$number $made"
    said=$(LC_ALL=C mkdir -p -- "$directory" 2>&1) || back "$said"
  fi
  cd "$directory/" 2> /dev/null || back 'Permission denied'
  all "keep_mode.$number" cp --attributes-only --preserve=mode -t "$source/new" -- ||
    all "keep_mode.$number" sh -c 'for f; do chmod --reference="$f" -- "$0/$f"; done' "$source/new"
  # What takes its place at once must be on the same mount, which no number of a device tells.
  if ln -T -- "$stage/go" ".sandbox-$nonce" 2> /dev/null; then
    rm -f ".sandbox-$nonce"
  else
    far="$number $far"
    said=$(LC_ALL=C cp -aT -- "$source" ".sandbox-$nonce" 2>&1) || back "$said"
    source=$directory/.sandbox-$nonce
  fi
  eval "source_$number=\$source"
  puts="$number $puts"
  mkdir -p "$source/old"
  all "replaced.$number" ln -t "$source/old" -- || all "replaced.$number" mv -t "$source/old" -- || back "$(cat "$stage/err")"
  cd "$source/new"
  { all "new.$number" mv -f -t "$directory/" -- && all "replaced.$number" mv -f -t "$directory/" -- && all "must_be_new.$number" ln -t "$directory/" --; } ||
    back "$(cat "$stage/err")"
}
