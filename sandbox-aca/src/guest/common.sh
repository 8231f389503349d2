# What every script of ours uses. One line comes back: OK, or E with an error's name.
umask 022
no() { echo "E $1 $2"; exit 0; }
there() { [ -e "$1" ] || [ -L "$1" ]; }
loops() { # loops PATH: whether the links on its way lead in a circle.
  case $(LC_ALL=C ls -d -- "$1/" 2>&1) in *'levels of symbolic links'* | *'ymbolic link loop'*) ;; *) return 1 ;; esac
}
not_dir() { # not_dir PATH NUMBER: why what is there is no directory.
  if loops "$1"; then no LOOP "$2"; else no NOTDIR "$2"; fi
}
climb() { # Why the path is not there. Not by itself: it may be there by now.
  above=${1%/*}
  while [ "$above" ] && ! there "$above"; do above=${above%/*}; done
  if [ -z "$above" ] || [ -d "$above" ]; then no NOENT "$2"; else not_dir "$above" "$2"; fi
}
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
