# Operations on files in the guest. One line comes back: OK, or E with an error's name.
# What stands in `d` is the place for what is staged.
umask 022
no() { echo "E $1 $2"; exit 0; }
climb() {
  q=$1
  while [ "$q" ] && ! [ -e "$q" ] && ! [ -L "$q" ]; do q=${q%/*}; done
  if [ -z "$q" ] || [ -d "$q" ]; then no NOENT "$2"; else no NOTDIR "$2"; fi
}
there() { [ -e "$1" ] || [ -L "$1" ]; }
lock() { exec 7> /tmp/.sandbox-lock; chmod 666 /tmp/.sandbox-lock 2> /dev/null; flock 7; }
denied() { # Why a command failed, by what it said.
  case $1 in
  *'Read-only file system'*) no RO "$2" ;;
  *'Permission denied'* | *'Operation not permitted'*) no PERM "$2" ;;
  *'No space left'* | *'quota exceeded'*) no NOSPACE "$2" ;;
  *'Not a directory'*) no NOTDIR "$2" ;;
  *'Directory not empty'*) no NOTEMPTY "$2" ;;
  *'busy'*) no BUSY "$2" ;;
  *'File exists'*) no EXIST "$2" ;;
  *'Is a directory'* | *'cannot overwrite directory'*) no ISDIR "$2" ;;
  *'No such file'*) no NOENT "$2" ;;
  *) no OTHER "$2" ;;
  esac
}
emit() { # A file: here if it is small, to be fetched if not.
  s=$(stat -c %s "$1")
  if [ "$s" -le 131072 ]; then echo "OK B"; base64 -w0 "$1"; echo; else trap - EXIT; echo "OK F"; fi
}
list() { # list DIRECTORY DEPTH ENTRIES
  if ! [ -d "$1" ]; then
    there "$1" && no NOTDIR
    climb "$1"
  fi
  mkdir -p "$d"
  find "$1/" -mindepth 1 $2 -printf '%P\0%y\0%s\0%m\0%T@\0%l\0' 2> "$d/err" | head -z -n $(($3 * 6 + 6)) > "$d/out"
  if [ -s "$d/err" ] && ! [ -s "$d/out" ]; then denied "$(head -c 4096 "$d/err")"; fi
  emit "$d/out"
}
about() {
  there "$1" || climb "$1"
  mkdir -p "$d"
  find "$1" -maxdepth 0 -printf '%f\0%y\0%s\0%m\0%T@\0%l\0' > "$d/out" 2> "$d/err" || denied "$(cat "$d/err")"
  emit "$d/out"
}
fetch() { # fetch FILE LIMIT
  if ! [ -e "$1" ]; then
    [ -L "$1" ] && no NOENT
    climb "$1"
  fi
  [ -d "$1" ] && no ISDIR
  [ -f "$1" ] || no NOTREG
  [ -r "$1" ] || no PERM
  [ "$(stat -L -c %s "$1")" -le "$2" ] || no LIMIT
  mkdir -p "$d"
  timeout 60 head -c $(($2 + 1)) -- "$1" > "$d/out" 2> "$d/err" || denied "$(cat "$d/err")"
  [ "$(stat -c %s "$d/out")" -le "$2" ] || no LIMIT
  emit "$d/out"
}
take_away() { # take_away PATH RECURSIVE
  there "$1" || climb "$1"
  if [ -d "$1" ] && ! [ -L "$1" ]; then
    if [ "$2" ]; then x=$(LC_ALL=C rm -rf -- "$1" 2>&1); else x=$(LC_ALL=C rmdir -- "$1" 2>&1); fi
  else
    x=$(LC_ALL=C rm -f -- "$1" 2>&1)
  fi || denied "$x"
  echo OK
}
make_dir() { # make_dir PATH MODE PARENTS
  if [ "$3" ]; then
    if [ -d "$1" ]; then echo OK; exit 0; fi
    there "$1" && no EXIST
    x=${1%/*}
    if [ "$x" ] && ! [ -d "$x" ]; then x=$(LC_ALL=C mkdir -p -- "$x" 2>&1) || { case $x in *'File exists'*) no NOTDIR ;; esac; denied "$x"; }; fi
  else
    there "$1" && no EXIST
    x=${1%/*}
    [ -z "$x" ] || [ -d "$x" ] || climb "$1"
  fi
  x=$(LC_ALL=C mkdir -- "$1" 2>&1 && LC_ALL=C chmod "$2" "$1" 2>&1) || denied "$x"
  echo OK
}
move() { # move FROM TO REPLACE
  lock
  there "$1" || climb "$1" 1
  if there "$2"; then [ "$3" ] || no EXIST 2; fi
  x=${2%/*}
  [ -z "$x" ] || [ -d "$x" ] || climb "$x" 2
  if [ -d "$1" ] && ! [ -L "$1" ] && there "$2" && ! { [ -d "$2" ] && ! [ -L "$2" ]; }; then no NOTDIR 2; fi
  x=$(LC_ALL=C mv -T -- "$1" "$2" 2>&1) || denied "$x" 2
  echo OK
}
enter() { # The workdir: must be a directory.
  [ -d "$1" ] && { echo OK; exit 0; }
  there "$1" && no NOTDIR
  climb "$1"
}
check() { # check NUMBER PATH KEEP_MODE CREATE_NEW
  if there "$2"; then
    [ -z "$4" ] || no EXIST "$1"
    [ -d "$2" ] && ! [ -L "$2" ] && no ISDIR "$1"
    if [ -f "$2" ] && ! [ -L "$2" ]; then
      [ -w "$2" ] || no PERM "$1"
      [ -z "$3" ] || chmod --reference="$2" "$d/$1"
    fi
    return 0
  fi
  q=${2%/*}
  while [ "$q" ] && ! there "$q"; do q=${q%/*}; done
  [ -z "$q" ] || [ -d "$q" ] || no NOTDIR "$1"
}
swept() { # Nothing is left beside the files.
  for x in $beside; do
    eval "w=\$w$x"
    rm -f -- "$w$x" "${w}old$x"
  done
}
back() { # Takes back what was done; then says why.
  for x in $done_; do
    y=${x#?}
    eval "z=\$p$y"
    case $x in
    n*) rm -f -- "$z" ;;
    o*) eval "w=\$w$y"; mv -fT -- "${w}old$y" "$z" ;;
    m*) eval "z=\$q$y"; find "$z" -type d -empty -delete 2> /dev/null ;;
    esac
  done
  swept
  denied "$1" "$2"
}
put() { # put NUMBER PATH CREATE_NEW
  y=${2%/*}
  if [ "$y" ] && ! [ -d "$y" ]; then
    z=$y
    while x=${z%/*}; [ "$x" ] && ! there "$x"; do z=$x; done
    eval "q$1=\$z"
    done_="m$1 $done_"
    x=$(LC_ALL=C mkdir -p -- "$y" 2>&1) || back "$x" "$1"
  fi
  # What takes its place at once must be on the same mount, which no number of a device tells.
  if [ "$y" != "$last" ]; then
    last=$y
    if ln -T -- "$d/go" "$y/.sandbox-$$-p" 2> /dev/null; then far= && rm -f -- "$y/.sandbox-$$-p"; else far=1; fi
  fi
  w=$d/
  if [ "$far" ]; then
    w=$y/.sandbox-$$-
    beside="$beside $1"
    x=$(LC_ALL=C cp -pT -- "$d/$1" "$w$1" 2>&1) || { rm -f -- "$w$1"; back "$x" "$1"; }
  fi
  eval "w$1=\$w"
  if [ "$3" ]; then
    x=$(LC_ALL=C ln -T -- "$w$1" "$2" 2>&1) || back "$x" "$1"
    done_="n$1 $done_"
    return 0
  fi
  if there "$2"; then
    x=$(LC_ALL=C ln -T -- "$2" "${w}old$1" 2>&1) || x=$(LC_ALL=C mv -T -- "$2" "${w}old$1" 2>&1) || back "$x" "$1"
    done_="o$1 $done_"
  else
    done_="n$1 $done_"
  fi
  # Not in a subshell: a batch may have thousands of files.
  LC_ALL=C mv -fT -- "$w$1" "$2" 2> "$d/err" || back "$(cat "$d/err")" "$1"
}
