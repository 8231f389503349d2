# Puts a batch in place: all of it or nothing, with a few processes for each directory.
# Set before: d, the staging directory, and n, a fresh name. What is put into the directory of number
# K stands in d/K under its own name.
made= puts= far=
into() { # into K DIRECTORY FILE: what follows goes there; FILE is its first, for errors.
  k=$1 y=$2
  eval "y$k=\$2 f$k=$3"
  # Names of files that: are new; are replaced; must be new; keep the mode of what they replace.
  exec 3> "$d/n$k" 4> "$d/o$k" 5> "$d/x$k" 6> "$d/m$k"
  q=$y
  while [ "$q" ] && ! there "$q"; do q=${q%/*}; done
  [ -z "$q" ] || [ -d "$q" ] || no NOTDIR "$3"
}
file() { # file NUMBER NAME KEEP_MODE CREATE_NEW
  p=$y/$2
  if there "$p"; then
    [ -z "$4" ] || no EXIST "$1"
    if ! [ -L "$p" ]; then
      [ -d "$p" ] && no ISDIR "$1"
      if [ -f "$p" ]; then
        [ -w "$p" ] || no PERM "$1"
        [ -z "$3" ] || printf '%s\0' "./$2" >&6
      fi
    fi
    printf '%s\0' "./$2" >&4
  elif [ "$4" ]; then
    printf '%s\0' "./$2" >&5
  else
    printf '%s\0' "./$2" >&3
  fi
}
all() { # all LIST COMMAND…: with the list's names behind it.
  l=$d/$1
  shift
  [ -s "$l" ] || return 0
  LC_ALL=C xargs -0 -a "$l" "$@" 2> "$d/err"
}
swept() {
  cd /
  for k in $far; do
    eval "y=\$y$k"
    rm -rf -- "$y/.sandbox-$n"
  done
}
back() { # Takes back what was done; then says why.
  for k in $puts; do
    eval "y=\$y$k w=\$w$k"
    cd "$y/" || continue
    all "n$k" sh -c 'for f; do [ -e "$0/$f" ] || [ -L "$0/$f" ] || rm -f -- "$f"; done' "$w/new"
    all "x$k" sh -c 'for f; do ! [ "$0/$f" -ef "$f" ] || rm -f -- "$f"; done' "$w/new"
    all "o$k" sh -c 'for f; do if [ -e "$0/$f" ] || [ -L "$0/$f" ]; then mv -fT -- "$0/$f" "$f"; fi; done' "$w/old"
  done
  cd /
  for k in $made; do
    eval "q=\$q$k"
    find "$q" -type d -empty -delete 2> /dev/null
  done
  swept
  denied "$1" "$first"
}
put() { # put K
  k=$1
  eval "y=\$y$k first=\$f$k"
  w=$d/$k
  if [ "$y" ] && ! [ -d "$y" ]; then
    q=$y
    while x=${q%/*}; [ "$x" ] && ! there "$x"; do q=$x; done
    eval "q$k=\$q"
    made="$k $made"
    x=$(LC_ALL=C mkdir -p -- "$y" 2>&1) || back "$x"
  fi
  cd "$y/" 2> /dev/null || back 'Permission denied'
  all "m$k" cp --attributes-only --preserve=mode -t "$w/new" -- ||
    all "m$k" sh -c 'for f; do chmod --reference="$f" -- "$0/$f"; done' "$w/new"
  # What takes its place at once must be on the same mount, which no number of a device tells.
  if ln -T -- "$d/go" ".sandbox-$n" 2> /dev/null; then
    rm -f ".sandbox-$n"
  else
    far="$k $far"
    x=$(LC_ALL=C cp -aT -- "$w" ".sandbox-$n" 2>&1) || back "$x"
    w=$y/.sandbox-$n
  fi
  eval "w$k=\$w"
  puts="$k $puts"
  mkdir -p "$w/old"
  all "o$k" ln -t "$w/old" -- || all "o$k" mv -t "$w/old" -- || back "$(cat "$d/err")"
  cd "$w/new"
  { all "n$k" mv -f -t "$y/" -- && all "o$k" mv -f -t "$y/" -- && all "x$k" ln -t "$y/" --; } ||
    back "$(cat "$d/err")"
}
