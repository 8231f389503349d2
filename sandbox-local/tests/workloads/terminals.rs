//! Programs that make terminals of their own.

use sandbox_core::FileBatch;

use crate::prints;

#[tokio::test]
async fn tmux_runs_a_session() {
    let script = r#"
        export TERM=screen
        tmux -L s -f /dev/null new-session -d -x 80 -y 24 'echo in tmux; tty > name; exec sleep 1000'
        until [[ $(tmux -L s capture-pane -p) == *'in tmux'* ]]; do :; done
        grep -q /dev/pts name
        tmux -L s capture-pane -p | sed -n 1p
        tmux -L s kill-server
    "#;
    prints("in tmux", FileBatch::new(), script).await;
}

#[tokio::test]
async fn script_and_python_make_a_terminal() {
    let script = r#"
        script -qec 'tty; stty size' /dev/null | grep /dev/pts >/dev/null
        /usr/bin/python3 -c 'import pty; pty.spawn(["sh", "-c", "test -t 1 && echo a terminal"])' | tr -d '\r'
    "#;
    prints("a terminal", FileBatch::new(), script).await;
}
