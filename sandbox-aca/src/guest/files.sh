# Operations on files. What stands in `stage` is the directory for what is staged.
emit() { # A file: here if it is small, to be fetched if not.
  size=$(stat -c %s "$1")
  if [ "$size" -le 131072 ]; then echo "OK B"; base64 -w0 "$1"; echo; else trap - EXIT; echo "OK F $size"; fi
}
list() { # list DIRECTORY DEPTH ENTRIES
  if ! [ -d "$1" ]; then
    there "$1" && not_dir "$1"
    climb "$1"
  fi
  mkdir -p "$stage"
  # A directory of kind `x` is one whose entries can't be told.
  find "$1/" -mindepth 1 $2 \( -type d \( ! -readable -o ! -executable \) -printf '%P\0x\0%s\0%m\0%U\0%G\0%T@\0%l\0' -o -printf '%P\0%y\0%s\0%m\0%U\0%G\0%T@\0%l\0' \) 2> "$stage/err" | head -z -n $(($3 * 8 + 8)) > "$stage/out"
  if [ -s "$stage/err" ] && ! [ -s "$stage/out" ]; then denied "$(head -c 4096 "$stage/err")"; fi
  emit "$stage/out"
}
about() { # about PATH FOLLOW: the second is -L or empty.
  there "$1" || climb "$1"
  # A link that leads nowhere, or in a circle.
  [ -z "$2" ] || [ -e "$1" ] || no NOENT
  mkdir -p "$stage"
  find $2 "$1" -maxdepth 0 -printf '%f\0%y\0%s\0%m\0%U\0%G\0%T@\0%l\0' > "$stage/out" 2> "$stage/err" || denied "$(cat "$stage/err")"
  emit "$stage/out"
}
readable() { # readable FILE: or why it is not.
  if ! [ -e "$1" ]; then
    if [ -L "$1" ]; then loops "$1" && no LOOP; no NOENT; fi
    climb "$1"
  fi
  [ -d "$1" ] && no ISDIR
  [ -f "$1" ] || no NOTREG
  [ -r "$1" ] || no PERM
}
hold() { # hold FILE: a second name for it, which stays; a copy where a file has one name.
  readable "$1"
  mkdir -p "$stage"
  ln -L -- "$1" "$stage/file" 2> /dev/null ||
    LC_ALL=C cp -L --reflink=auto --preserve=timestamps -- "$1" "$stage/file" 2> "$stage/err" || denied "$(cat "$stage/err")"
  trap - EXIT
  echo "OK $(find "$stage/file" -printf '%s %T@')"
}
part() { # part FILE FIRST LENGTH: bytes of what is held.
  mkdir -p "$stage"
  tail -c "+$2" "$1" | head -c "$3" > "$stage/out"
  emit "$stage/out"
}
fetch() { # fetch FILE LIMIT
  readable "$1"
  [ "$(stat -L -c %s "$1")" -le "$2" ] || no LIMIT
  mkdir -p "$stage"
  timeout 60 head -c $(($2 + 1)) -- "$1" > "$stage/out" 2> "$stage/err" || denied "$(cat "$stage/err")"
  [ "$(stat -c %s "$stage/out")" -le "$2" ] || no LIMIT
  emit "$stage/out"
}
take_away() { # take_away PATH RECURSIVE
  there "$1" || climb "$1"
  if [ -d "$1" ] && ! [ -L "$1" ]; then
    if [ "$2" ]; then said=$(LC_ALL=C rm -rf -- "$1" 2>&1); else said=$(LC_ALL=C rmdir -- "$1" 2>&1); fi
  else
    said=$(LC_ALL=C rm -f -- "$1" 2>&1)
  fi || denied "$said"
  echo OK
}
make_dir() { # make_dir PATH MODE PARENTS
  if [ "$3" ]; then
    if [ -d "$1" ]; then echo OK; exit 0; fi
    there "$1" && no EXIST
    parent=${1%/*}
    if [ "$parent" ] && ! [ -d "$parent" ]; then said=$(LC_ALL=C mkdir -p -- "$parent" 2>&1) || { case $said in *'File exists'*) no NOTDIR ;; esac; denied "$said"; }; fi
  else
    there "$1" && no EXIST
    parent=${1%/*}
    [ -z "$parent" ] || [ -d "$parent" ] || climb "$1"
  fi
  said=$(LC_ALL=C mkdir -- "$1" 2>&1 && LC_ALL=C chmod "$2" "$1" 2>&1) || denied "$said"
  echo OK
}
move() { # move FROM TO REPLACE
  lock
  there "$1" || climb "$1" 1
  if there "$2"; then [ "$3" ] || no EXIST 2; fi
  parent=${2%/*}
  [ -z "$parent" ] || [ -d "$parent" ] || climb "$2" 2
  if [ -d "$1" ] && ! [ -L "$1" ] && there "$2" && ! { [ -d "$2" ] && ! [ -L "$2" ]; }; then no NOTDIR 2; fi
  said=$(LC_ALL=C mv -T -- "$1" "$2" 2>&1) || denied "$said" 2
  echo OK
}
need() { # What an image must have for our scripts, by the first that it lacks.
  for tool in base64 cat chmod cp env find flock grep head ln ls mkdir mkfifo mv od rm rmdir setsid sleep sort split stat tail tar timeout tr truncate xargs; do
    command -v "$tool" > /dev/null || no NOTOOL "$tool"
  done
  # Smaller ones than GNU's have the names and not all that is used of them.
  find / -maxdepth 0 -printf '' 2> /dev/null || no NOTOOL 'find -printf'
  head -z -n 0 < /dev/null 2> /dev/null || no NOTOOL 'head -z'
}
make_workdir() { # make_workdir PATH: with the directories above it, in a sandbox that is new.
  need
  said=$(LC_ALL=C mkdir -p -- "$1" 2>&1) || denied "$said"
  echo OK
}
enter() { # The workdir: must be a directory.
  [ -d "$1" ] && { echo OK; exit 0; }
  [ -e "$1" ] && no NOTDIR
  if [ -L "$1" ]; then loops "$1" && no LOOP; no NOENT; fi
  climb "$1"
}
